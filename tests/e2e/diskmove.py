# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a machine of disk tests: a small node whose data are moved into an encrypted volume.

Node, spare partition and marks lie on one disk, so that all that is written is recorded in one order. The node's own
code moves them, with real cryptsetup, dm-crypt, rsync and ext4. Two things are not as on a node: a script stands in
systemd's place (`disksystemctl.sh`), and a guess at the passphrase costs next to nothing, which would be seconds here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess

from diskmarks import BEGUN, DISK, MIB, Marks, attaching, partition, shell

from ansible_collections.kind.kos.plugins.module_utils.node import files, store
from ansible_collections.kind.kos.plugins.module_utils.node.encryption import move, record
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import luks

# Where partitions begin and end: the node's own file system, the spare one, what tells a reader of the log where it is.
NODE, SPARE, MARKS = (MIB, 97 * MIB), (97 * MIB, 273 * MIB), (273 * MIB, 275 * MIB)
SIZE = 276 * MIB
PASSPHRASE = "violet ladder anvil sparrow"
NOTES, FILES, LATE = "/var/lib/kos-notes", "/var/lib/kos-files", "/var/lib/kos-late"
SAVED = "late data are there"
_SYSTEMCTL = "/run/code/tests/e2e/disksystemctl.sh"
_ATTACH = attaching("etc/kos etc/systemd/system-generators var/lib")
_DETACH = """
systemctl stop -- kos-notes.service
umount /usr/bin/systemctl
umount --recursive /var/lib
for place in /etc/systemd/system-generators /etc/kos; do umount $place; done
umount /run/disk
[ ! -e /dev/mapper/kos-encrypted ] || cryptsetup close kos-encrypted
sync
"""
# One line a note, and each on the disk before the next.
_WRITER = """\
number=$(wc -l </var/lib/kos-notes/log)
while :; do
  number=$((number + 1))
  echo "note $number" >>/var/lib/kos-notes/log
  sync /var/lib/kos-notes/log
  sleep 0.3
done
"""
_ROW = {"capabilities": [], "hooks": {"post_init": []}, "probe": None, "backup": None}
_MANIFEST = {
    "profile": "cuts",
    "services": [{"name": "notes", "units": ["kos-notes.service"], **_ROW}],
    "units": [{"name": "kos-notes.service", "service": "notes", "tier": 0, "starts": "now"}],
    "volumes": [{"path": path, "service": "notes", "user": "root"} for path in (NOTES, FILES, LATE)],
}


def content(folder: str) -> dict[str, bytes]:
    """The files of a data directory that nobody writes to: what they hold follows from their names."""
    sizes = {FILES: [70_000, 9_000, 0, 1, 300_000, 4096] * 8, LATE: [20_000, 500_000]}[folder]
    names = [f"base/{number % 5}/{number}" for number in range(len(sizes))]
    return {name: _bytes(folder + name, size) for name, size in zip(names, sizes, strict=True)}


def _bytes(seed: str, size: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


def carry_out(asked):
    """What the agent calls: `record` a move, or go on with what a power cut left (`again`)."""
    _without_cost()
    return {"record": _record, "again": _again}[asked["verb"]](asked)


def say(**words):
    print(json.dumps(words), flush=True)


def _without_cost():
    luks.FLOOR_KIB = luks._MOST_KIB = 32


@contextlib.contextmanager
def _attached():
    """The node that the disk has, with its service started as at a boot."""
    with open("/run/kos-notes.sh", "w", encoding="utf-8") as stream:
        stream.write(_WRITER)
    # The node's code takes the machine for one that systemd has booted.
    shell(f"mkdir -p /run/systemd/system; mount --bind {_SYSTEMCTL} /usr/bin/systemctl")
    shell(_ATTACH)
    try:
        yield
    finally:
        shell(_DETACH)


def _record(asked):
    partition(NODE, SPARE, MARKS)
    with _attached():
        _write(FILES)
        _write(NOTES)
        _generation()
        os.sync()
        _boot()
        marks = Marks(f"{DISK}-part3")
        marks.listen(_named)
        _SABOTAGES[asked.get("sabotage", "")]()
        marks.put(BEGUN)
        _moved()
        _write(LATE)
        shell("sync")
        marks.put(SAVED)
        _moved()
        move.discard(Root(), unproven=True)
    return 0


def _again(asked):
    """What an operator does after a power cut: the same once more, which may be to `discard` the plain copies."""
    shell("udevadm trigger --action=change --subsystem-match=block; udevadm settle")
    with _attached():
        _boot()
        say(in_use=record.in_use(Root()), runs=_runs())
        report = _moved()
        if asked["discard"]:
            move.discard(Root(), unproven=True)
        say(changed=report.changed, findings=report.findings, runs=_runs(), in_clear=record.in_clear(Root()),
            stopped=record.require(Root()).stopped, plain=record.require(Root()).plain)  # fmt: skip
    return 0


def _moved():
    return move.apply(Root(), move.Wish(target=f"{DISK}-part2"), PASSPHRASE)


def _boot():
    shell("systemctl daemon-reload; systemctl start -- kos-notes.service")


def _runs():
    return subprocess.run(["systemctl", "is-active", "--", "kos-notes.service"], check=False).returncode == 0


def _write(folder):
    os.makedirs(folder, mode=0o700)
    for name, data in ({"log": b""} if folder == NOTES else content(folder)).items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(data)


def _generation():
    """As a deploy leaves one; of its code only that which opens the volume at boot."""
    root = Root()
    place = root.state("generations", "1")
    files.write_json(os.path.join(place, store.MANIFEST), _MANIFEST)
    code = os.path.join(place, "node", "kos_node")
    os.makedirs(code)
    shell(f"cp --recursive /run/code/plugins/module_utils/node/encryption {code}")
    store.point_current(root, 1)


def _named(event, arguments):
    """Programs that are run, and names that files take: one of them decides which data are in use."""
    if event == "subprocess.Popen":
        return " ".join(map(str, arguments[1][:2]))
    return str(arguments[1]) if event in ("os.rename", "os.symlink") else ""


def _no_sync():
    """What it takes to lose data: nothing waits for the disk of the copies before these are in use."""
    os.sync = lambda: None


def _in_place():
    """What it takes to use old data again: what is in use is taken away before its successor is there."""

    def link(path, target):
        files.make_directory(os.path.dirname(path))
        files.remove(path)
        for number in range(10):
            files.write(Root().state("other"), str(number).encode())
        os.symlink(target, path)
        files.sync_directory(path)

    files.link = link


_SABOTAGES = {"": lambda: None, "no sync": _no_sync, "in place": _in_place}
