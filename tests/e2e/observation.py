# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node is, as one JSON document that says the same of every node that was made alike: run there as root.

Written with no code of kOS's own. What two nodes may not share is left out or replaced here and nowhere else:
host name and addresses (words stand for them), ids of users (names are compared), what is sealed or secret (every
node makes its own; that it is there is compared), numbers of generations, and times.
"""

from __future__ import annotations

import glob
import grp
import hashlib
import json
import os
import pwd
import re
import socket
import stat
import subprocess

SECRET = ("/etc/credstore.encrypted/", "/var/lib/kos/secrets/", "/var/lib/kos/identity/")
# Each machine's own identity; accounts, which are compared as such and not in the order of their making; caches.
OWN = (
    "machine-id",
    "ssh",
    "ssl/private",
    "ssl/certs",
    "systemd/network",
    "hosts",
    "ld.so.cache",
    ".updated",
    ".pwd.lock",
)
ACCOUNTS = [
    f"{name}{old}" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid") for old in ("", "-")
]
# Compared in words of their own below, or differing by numbers and times.
APART = (
    "generations", "current", "history.json", "ledger.json", "node.json", "sealed.json", "started",
    "watch.json", "metrics", "exits", "alternatives.json",
)  # fmt: skip


def said(line: str) -> list[str]:
    """The lines that a shell command prints, sorted."""
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    return sorted(filter(None, done.stdout.splitlines()))


def _own_words() -> dict[str, str]:
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    return {socket.gethostname(): "@node@", **dict.fromkeys(addresses, "@address@")}


WORDS = _own_words()
_WORD = re.compile(
    "|".join(rf"(?<![\w.:]){re.escape(word)}(?![\w.:])" for word in sorted(WORDS, key=len, reverse=True))
)


def alike(text: str) -> str:
    """`text` with the node's own name and addresses replaced."""
    return _WORD.sub(lambda match: WORDS[match[0]], text)


def owner(status: os.stat_result) -> str:
    """User and group by name."""
    try:
        user = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        user = str(status.st_uid)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return f"{user}:{group}"


def described(path: str) -> str:
    """Kind, mode, owner and content of one path."""
    status = os.lstat(path)
    text = f"{stat.filemode(status.st_mode)} {owner(status)}"
    if stat.S_ISLNK(status.st_mode):
        return f"{text} -> {os.readlink(path)}"
    if not stat.S_ISREG(status.st_mode):
        return text
    if path.startswith(SECRET):
        return f"{text} {'something' if status.st_size else 'nothing'} in it"
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        content = alike(stream.read()).encode(errors="surrogateescape")
    return f"{text} {hashlib.sha256(content).hexdigest()[:16]}"


def tree(top: str, *skipped: str) -> dict[str, str]:
    """Every path below `top` but for `skipped` (relative to it)."""
    away = {os.path.join(top, name) for name in skipped}
    found = {}
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in away]
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            if path not in away:
                found[path] = described(path)
    return found


def document(path: str, default: object) -> object:
    """A JSON file, or `default` where there is none."""
    if not os.path.exists(path):
        return default
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def unit_state(unit: str) -> str:
    """What systemd says of a unit; whether the boot's own and the watch's run tells of reboots and the time alone."""
    now_and_then = ("kos-boot.service", "kos-watch.service")
    wanted = "LoadState,UnitFileState,FragmentPath" + ("" if unit in now_and_then else ",ActiveState")
    return " ".join(said(f"systemctl show -p {wanted} -- {unit}"))


def listing(path: str) -> list[str]:
    """The names in a folder, none where there is none."""
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def observation() -> dict[str, object]:
    """The whole document."""
    ledger = document("/var/lib/kos/ledger.json", {})
    manifest = document(os.path.realpath("/var/lib/kos/current") + "/manifest.json", {})
    masked = [
        os.path.basename(path) for path in glob.glob("/etc/systemd/system/*") if os.path.realpath(path) == "/dev/null"
    ]
    units = [line.split()[0] for line in said("systemctl list-unit-files --plain --no-legend 'kos-*'")]
    with open("/etc/passwd", encoding="utf-8") as stream:
        users = [":".join(row.split(":")[:1] + row.split(":")[4:]) for row in stream.read().splitlines()]
    return {
        "files of /etc": tree("/etc", *OWN, *ACCOUNTS),
        "what kOS keeps": tree("/var/lib/kos", *APART),
        "data": {path: described(path) for path in glob.glob("/var/lib/kos-*")},
        "generation": manifest,
        "half-made generations": [name for name in listing("/var/lib/kos/generations") if name.startswith(".")],
        "stamps": listing("/var/lib/kos/started"),
        "sealed": sorted(document("/var/lib/kos/sealed.json", {})),
        # What was in apt's cache before is not in its downloads; users are compared by name.
        "ledger": {key: sorted(rows, key=str) if isinstance(rows, (list, dict)) else rows
                   for key, rows in ledger.items() if key not in ("originals", "time", "downloads")},
        "units": {unit: unit_state(unit) for unit in {*ledger.get("units", []), *units, *masked}},
        "deadlines": said("systemctl list-units --all --plain --no-legend 'kos-deadline-*' | cut -d' ' -f1"),
        "failed units": said("systemctl list-units --failed --plain --no-legend 'kos-*'"),
        "users": sorted(users),
        "groups": sorted(f"{row.gr_name}:{','.join(sorted(row.gr_mem))}" for row in grp.getgrall()),
        "packages": said("dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n'"),
        "dpkg's complaints": said("dpkg --audit"),
        "listeners": [alike(line) for line in said("ss -Htuln | awk '{print $1, $5}'")],
        "packet filter": [alike(line) for line in said("nft -s list table inet kos")],
        "temporary files": said("find /etc /var/lib/kos -name '*.kos-new'"),
    }  # fmt: skip


print(json.dumps(observation()))
