# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd is told: mounts of the volume and of each directory in it, and that no service starts without them.

All of it is one tree, which a generator hands out at boot and at each reload; the tree is exchanged by one rename, so
that no power cut leaves half of it in force. A unit whose data are locked is skipped, not failed, and the machine
comes up: somebody has to be let in to unlock it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import files, store, system
from ..files import Root
from .record import CODE, CURRENT, DEVICE, FOLDER, GENERATOR, LIST, UNITS, VOLUME, inside, moved

SERVICE = "kos-encryption.service"
_DROP_IN = "kos-encryption.conf"
_TREE = re.compile(r"^\d+$")
# They look after themselves, or after whoever has to unlock the node.
_FREE = ("kos-status.service", "kos-watch.service", SERVICE)

_GENERATOR = f"""\
#!/bin/sh
# Hands out the systemd units of kOS's encrypted volume, once its data are in use.
[ -d {UNITS} ] || exit 0
exec cp -a {UNITS}/. "$1"
"""
_OPENER = f"""\
[Unit]
Description=Open the encrypted data of kOS, where a key of this machine can
After=local-fs.target network.target
ConditionPathExists={CODE}

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=10min
ExecStart=/usr/bin/python3 -I -B {CODE} encryption open
"""
# Every service that keeps data pulls these in at boot, when nothing is open yet: then they are skipped. Were the device
# named below /dev, systemd would wait 90 s for it, with all that comes after local file systems, SSH among it.
_VOLUME_MOUNT = f"""\
[Unit]
Description=Encrypted data of kOS
ConditionPathExists={DEVICE}

[Mount]
What=/proc/self/root{DEVICE}
Where={VOLUME}
Type=ext4
Options=nodev,nosuid,noatime
"""
_BIND = """\
[Unit]
Description=Encrypted data of kOS at {path}
Requires={volume}
After={volume}
ConditionPathIsMountPoint={mounted}

[Mount]
What={inside}
Where={path}
Type=none
Options=bind
"""
_GUARD = """\
[Unit]
After={service}
ConditionPathIsMountPoint={volume}
"""


def mount_of(path: str) -> str:
    """The name of the mount unit of a path (systemd-escape(1))."""
    words = path.strip("/")
    safe = "".join(
        "-" if letter == "/" else letter
        if letter.isascii() and (letter.isalnum() or letter in ":_" or (letter == "." and at))
        else "".join(f"\\x{byte:02x}" for byte in letter.encode())
        for at, letter in enumerate(words)
    )  # fmt: skip
    return f"{safe}.mount"


def guarded(manifest: Mapping[str, Any]) -> list[str]:
    """The systemd units of a generation that are of no use, or a danger, while the data are locked."""
    services = {row["name"]: row for row in manifest["services"]}
    return [
        row["name"]
        for row in manifest["units"]
        if row["name"].endswith(".service")
        and row["name"] not in _FREE
        and "firewall" not in services.get(row["service"], {"capabilities": ()})["capabilities"]
    ]


def tree(directories: Sequence[str], manifest: Mapping[str, Any]) -> dict[str, str]:
    """Every file that systemd gets, by its path, and links as `-> target`."""
    volume = mount_of(VOLUME)
    found = {
        SERVICE: _OPENER,
        f"multi-user.target.wants/{SERVICE}": f"-> ../{SERVICE}",
        volume: _VOLUME_MOUNT,
    }
    for path in directories:
        found[mount_of(path)] = _BIND.format(path=path, volume=volume, mounted=VOLUME, inside=inside(path))
    for name in guarded(manifest):
        found[f"{name}.d/{_DROP_IN}"] = _GUARD.format(service=SERVICE, volume=VOLUME)
    return found


def write(root: Root, directories: Sequence[str], manifest: Mapping[str, Any]) -> str:
    """Write list and tree beside those in force, all of it on disk then; gives its name. Raises OSError."""
    folder = root.join(FOLDER)
    files.make_directory(folder)
    _sweep(root)
    name = str(max((int(row) for row in os.listdir(folder) if _TREE.match(row)), default=0) + 1)
    files.write_json(os.path.join(folder, name, os.path.basename(LIST)), sorted(directories))
    for path, text in tree(directories, manifest).items():
        place = os.path.join(folder, name, os.path.basename(UNITS), path)
        if text.startswith("-> "):
            files.link(place, text[3:])
        else:
            files.write(place, text.encode())
    # Not before the rest: it would hand out what is not there.
    files.write(root.join(GENERATOR), _GENERATOR.encode(), 0o755)
    return name


def put_in_force(root: Root, name: str) -> None:
    """The one step that decides: from now on these are the directories whose encrypted data are used."""
    files.link(root.join(CURRENT), name)
    _sweep(root)


def withdraw(root: Root) -> None:
    """The one step back: from now on the plain data are what is used."""
    files.remove(root.join(CURRENT))
    _sweep(root)


def _sweep(root: Root) -> None:
    """Remove the trees that are not in force."""
    folder, link = root.join(FOLDER), root.join(CURRENT)
    files.drop_unfinished(link)
    kept = os.readlink(link) if os.path.islink(link) else ""
    for name in os.listdir(folder):
        if _TREE.match(name) and name != kept:
            shutil.rmtree(os.path.join(folder, name))


def renew(root: Root, manifest: Mapping[str, Any]) -> bool:
    """Exchange what systemd is told where this release, or another generation, says more; whether it did."""
    here = moved(root)
    if not here or _seen(root.join(UNITS)) == tree(here, manifest):
        return False
    put_in_force(root, write(root, here, manifest))
    reload(root)
    return True


def _seen(folder: str) -> dict[str, str]:
    found = {}
    for place, _folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            text = f"-> {os.readlink(path)}" if os.path.islink(path) else (files.read(path) or b"").decode()
            found[os.path.relpath(path, folder)] = text
    return found


def reload(root: Root) -> None:
    """Let systemd read what is in force now. Raises CommandFailed."""
    if root.booted:
        system.run(["systemctl", "daemon-reload"])


def mount(root: Root, paths: Iterable[str]) -> None:
    """Mount the volume and what is bound to its places. Raises CommandFailed, OSError."""
    for path in (VOLUME, *paths):
        os.makedirs(root.join(path), mode=0o700, exist_ok=True)
    system.run(["systemctl", "start", "--", mount_of(VOLUME), *map(mount_of, paths)])


def unmount(paths: Iterable[str]) -> None:
    """Take it away again, the volume last. Raises CommandFailed where somebody uses it."""
    system.run(["systemctl", "stop", "--", *map(mount_of, paths)])
    system.run(["systemctl", "stop", "--", mount_of(VOLUME)])


def keep_code(root: Root) -> None:
    """Keep the code that opens the volume beside the generations, exchanged by one rename. Raises OSError."""
    active = store.current(root)
    if active is None or not os.path.isdir(os.path.join(active.path, "node", "kos_node", "encryption")):
        return
    link = root.join(CODE)
    kept = os.readlink(link) if os.path.islink(link) else ""
    name = f"code.{active.number}"
    place = os.path.join(os.path.dirname(link), name)
    if name != kept:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(os.path.join(active.path, "node"), place)
        os.sync()
        files.link(link, name)
    for other in os.listdir(os.path.dirname(link)):
        if other.startswith("code.") and other != name:
            shutil.rmtree(os.path.join(os.path.dirname(link), other))


def exclude(root: Root, path: str) -> None:
    """Let the list and the tree in force be without one directory. Raises OSError."""
    place = root.join(CURRENT)
    folder = os.path.dirname(place)
    name = str(max(int(row) for row in os.listdir(folder) if _TREE.match(row)) + 1)
    shutil.copytree(place, os.path.join(folder, name), symlinks=True)
    files.remove(os.path.join(folder, name, os.path.basename(UNITS), mount_of(path)))
    rest = [row for row in moved(root) if row != path]
    files.write_json(os.path.join(folder, name, os.path.basename(LIST)), rest)
    os.sync()
    put_in_force(root, name)
