# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything of a machine that a deploy could leave behind, as one JSON document: run on the node as root.

Written with no code of kOS's own: what it says must not depend on what it checks.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys

TREES = ("/etc", "/usr", "/var", "/root", "/home", "/opt", "/srv", "/run", "/tmp", "/boot", "/dev/shm")
# Other file systems, what only says that time has passed, and the caller's own traces.
SKIPPED = ("/run/systemd", "/run/udev", "/run/dbus", "/run/user", "/run/log", "/var/log/journal", "/run/host")
SYSCTLS = ("vm.overcommit_memory", "vm.swappiness", "net.core.somaxconn", "net.ipv4.ip_forward", "fs.file-max",
           "net.ipv4.ip_unprivileged_port_start", "kernel.unprivileged_userns_clone", "vm.max_map_count")  # fmt: skip
COMMANDS = {
    "selections": "dpkg --get-selections",
    "manual packages": "apt-mark showmanual",
    "automatic packages": "apt-mark showauto",
    "held packages": "apt-mark showhold",
    "diversions": "dpkg-divert --list",
    "stat overrides": "dpkg-statoverride --list",
    "alternatives": "update-alternatives --get-selections",
    "unit files": "systemctl list-unit-files --plain --no-legend --full",
    "loaded units": "systemctl list-units --all --plain --no-legend --full --type=service,timer,socket,path,target",
    "failed units": "systemctl list-units --failed --plain --no-legend",
    "rules": "nft -s list ruleset",
    "listeners": "ss -Htuln",
    "timers": "systemctl list-timers --all --no-legend --plain",
    "sysctls": "sysctl " + " ".join(SYSCTLS),
    "lingering users": "ls /var/lib/systemd/linger",
    "crontabs": "ls /var/spool/cron/crontabs",
    "configuration registered with ucf": "ucfq --with-colons /etc",
}
ACCOUNTS = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid")


def main() -> None:
    """Print the document."""
    files = {}
    for tree in TREES:
        for folder, folders, names in os.walk(tree):
            folders[:] = [name for name in folders if not _skipped(os.path.join(folder, name))]
            for name in [*folders, *names]:
                path = os.path.join(folder, name)
                files[path] = _described(path)
    document = {
        "files": files,
        "accounts": {path: sorted(_lines(path)) for path in ACCOUNTS},
        "commands": {name: _said(name, command) for name, command in COMMANDS.items()},
    }
    json.dump(document, sys.stdout)


def _skipped(path: str) -> bool:
    # A running unit's private /tmp has another name at each start.
    return (
        path in SKIPPED
        or os.path.basename(path).startswith("systemd-private-")
        or (os.path.ismount(path) and not os.path.islink(path))
    )


def _described(path: str) -> str:
    try:
        status = os.lstat(path)
        text = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
        if stat.S_ISLNK(status.st_mode):
            return f"{text} -> {os.readlink(path)}"
        attributes = [(name, os.getxattr(path, name).hex()) for name in sorted(os.listxattr(path))]
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as stream:
                text += f" {status.st_size} {hashlib.sha256(stream.read()).hexdigest()}"
        return f"{text} {attributes}" if attributes else text
    except FileNotFoundError:
        return "gone"


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().splitlines()
    except FileNotFoundError:
        return ["(no such file)"]


def _said(name: str, command: str) -> list[str]:
    environment = {**os.environ, "LC_ALL": "C", "COLUMNS": "400"}
    try:
        done = subprocess.run(command.split(), capture_output=True, text=True, env=environment, check=False)
    except FileNotFoundError:
        return ["(no such command)"]
    lines = done.stdout.splitlines()
    if name == "loaded units":
        # The unit, its load state and whether it is active: not when it last ran.
        lines = [" ".join(line.split()[:3]) for line in lines]
    if name == "timers":
        lines = [line.split()[-2] for line in lines if line.strip()]
    return sorted(" ".join(line.split()) for line in lines)


main()
