# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups by a node's own code, with real restic: in a root of Debian's whose state is on a disk of its own.

That disk is one that is recorded, or what a power cut has left of one. There is no systemd: what its one unit would
run, a script runs, as the same user and with the same arguments.
"""

from __future__ import annotations

import json
import os
import random
import shutil

from diskmarks import BEGUN, MIB, Marks, shell

from ansible_collections.kind.kos.plugins.module_utils.node import backup, files, repository, restore, store
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root

# A file system with the node's own state and the repository, and what tells a reader of the log where it is.
NODE, MARKS = (0, 500 * MIB), (500 * MIB, 502 * MIB)
RECORDED = "/run/recorded"
REPOSITORY, NOTES = "/srv/backup", "/var/lib/kos-notes"
# Made before the recording begins, while it is made, and by the run after a power cut.
BEFORE, DURING, AFTER = (1, 2), (3, 4), 9
KEPT = 3
SABOTAGED = "sabotaged"
_SYSTEMCTL = """\
#!/bin/sh
case "$*" in
"start kos-restic.service")
  CREDENTIALS_DIRECTORY=/etc/kos/credentials setpriv --reuid=kos-backup --regid=kos-backup --clear-groups \
    sh /etc/kos/restic/run.sh >/run/kos-backup/output 2>/run/kos-backup/errors
  code=$?
  echo "$code" >/run/kos-restic.code
  exit "$code"
  ;;
"show "*ExecMainStatus*) cat /run/kos-restic.code ;;
esac
"""
_MACHINE = """
hostname cuts
echo 'kos-backup:x:990:' >>/etc/group
echo 'kos-backup:x:990:990::/var/lib/kos-backup:/usr/sbin/nologin' >>/etc/passwd
install -d -o kos-backup -g kos-backup -m 0700 /var/cache/kos-backup
mount --bind /run/systemctl /usr/bin/systemctl
"""
_COMMAND = f'cp --recursive {NOTES}/. "$KOS_BACKUP"'
_MANIFEST = {
    "profile": "cuts",
    "services": [
        {
            "name": "notes", "units": [], "user": "root",
            "backup": {"command": ["/bin/sh", "-ec", _COMMAND], "restore": [], "holds": [], "stopped": []},
        }
    ],
    "units": [], "volumes": [], "packages": [], "secrets": [],
}  # fmt: skip


def content(version: int) -> dict[str, bytes]:
    """The data at one time: some that stay, some that grow, some that are others each time."""
    grown = b"".join(_bytes(f"grown {number}", 40_000) for number in range(version))
    return {"version": str(version).encode(), "same": _bytes("same", 200_000), "grown": grown,
            "other": _bytes(f"other {version}", 150_000)}  # fmt: skip


def _bytes(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311


def carry_out(asked):
    """Be recorded, or go on with what a power cut left."""
    return {"record": _record, "again": _again}[asked["verb"]](asked)


def _record(asked):
    _machine()
    _node()
    for version in BEFORE:
        _back_up(version)
    shell("sync")
    marks = Marks(RECORDED, MARKS[0])
    marks.listen(_named)
    marks.put(BEGUN)
    for version in DURING:
        _back_up(version)
        if asked.get("sabotage"):
            marks.put(SABOTAGED)
            _SABOTAGES[asked["sabotage"]]()
        marks.put(stored(version))
    return 0


def stored(version: int) -> str:
    """The mark that this version's backup has ended well."""
    return f"stored {version}"


def _again(asked):
    """One more backup, and what of the older ones comes back: told as JSON."""

    _machine()
    record = _back_up(AFTER)
    # All of what it holds, as `kai verify --data 100%`.
    verified = restore.verify(Root(), "100%")
    found = {"the newest": AFTER if verified["ok"] else 0}
    for row in repository.snapshots(REPOSITORY)[:-1]:
        out = f"/run/restored/{row['id']}"
        os.makedirs(out)
        shutil.chown(out, "kos-backup", "kos-backup")
        os.chmod("/run/restored", 0o755)
        repository.restic(REPOSITORY, "--no-lock", "--quiet", "restore", row["id"], "--target", out)
        found[row["id"]] = _version(f"{out}/var/lib/kos/staging/notes")
    print(json.dumps({"ok": record["ok"], "verified": verified["ok"], "found": found, "why": verified}), flush=True)
    return 0


def _version(folder):
    """Which version of the data a folder has, to the byte; 0 for none."""
    there = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        with open(os.path.join(folder, name), "rb") as stream:
            there[name] = stream.read()
    versions = [number for number in (*BEFORE, *DURING, AFTER) if content(number) == there]
    return versions[0] if versions else 0


def _back_up(version):

    for name, data in content(version).items():
        with open(f"{NOTES}/{name}", "wb") as stream:
            stream.write(data)
    return backup.run(Root())


def _machine():
    """What is not on the disk: the user, and the script in systemd's place."""
    with open("/run/systemctl", "w", encoding="ascii") as stream:
        stream.write(_SYSTEMCTL)
    os.chmod("/run/systemctl", 0o755)
    shell(_MACHINE)


def _node():
    """As a deploy leaves it."""

    root = Root()
    os.makedirs(NOTES, mode=0o700)
    shell("install -d -o kos-backup -g kos-backup -m 0700 /var/lib/kos-backup /etc/kos/credentials")
    for name, text in (("password", "not a secret"), ("s3", ""), ("sftp_key", "")):
        with open(f"/etc/kos/credentials/{name}", "w", encoding="ascii") as stream:
            stream.write(text)
        shutil.chown(f"/etc/kos/credentials/{name}", "kos-backup", "kos-backup")
    shell("install -D /run/code/services/restic/templates/run.sh.j2 /etc/kos/restic/run.sh")
    files.write_json(repository.SETTINGS, {"repositories": [REPOSITORY], "retention": {"last": KEPT},
                                           "at_least": None, "schedule": "daily"})  # fmt: skip
    files.write_json(root.state("generations", "1", store.MANIFEST), _MANIFEST)
    store.point_current(root, 1)


def _named(event, arguments):
    """What restic is told to do."""
    if event != "os.rename" or arguments[1] != os.path.join(repository.TRAVEL, "arguments"):
        return ""
    with open(arguments[0], encoding="utf-8") as stream:
        words = stream.read().split("\n")[2:]
    return "restic " + next(word for word in words if not word.startswith("-"))


def _no_sync():
    """What it takes to lose a snapshot: its files are copies that nobody has waited for, while others are synced."""
    again = 'for file; do cp -p "$file" /run/copy && rm "$file" && cp -p /run/copy "$file"; done'
    shell(f"find {REPOSITORY}/data -type f -exec sh -c '{again}' sh {{}} +")
    for number in range(10):
        files.write(Root().state("other"), str(number).encode())


_SABOTAGES = {"no sync": _no_sync}
