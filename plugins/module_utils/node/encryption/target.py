# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk, partition or file that becomes the encrypted volume. What holds anything is refused unless it is named."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from typing import Any

from .. import space, system
from ..files import NodeError, Root
from ..machine import luks, signatures

_COLUMNS = "NAME,PATH,TYPE,SIZE,SERIAL,RO,PTTYPE,PARTLABEL,MOUNTPOINTS"
_KINDS = ("disk", "part", "lvm", "raid0", "raid1", "raid5", "raid6", "raid10")
_BEGINNING = 1 << 20  # bytes: every file system, LUKS and RAID have said what they are by then
# What ext4 needs beside the data: its tables and journal, and a reserve that is not used up at once.
_SHARE, _LEAST = 8, 128 << 20


class Refused(NodeError):
    """This target is not taken; nothing was written to it."""


class TooSmall(Refused):
    """The data do not fit; the text has the figures."""


@dataclass(frozen=True)
class Target:
    """What was found: sizes in bytes. `holds`: what lies on it, in words; empty where it is blank."""

    path: str
    kind: str
    size: int
    serial: str = ""
    read_only: bool = False
    holds: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    @property
    def file(self) -> bool:
        """Whether it is a file (or will be one)."""
        return self.kind == "file"


def look(path: str) -> Target:
    """What is at the path of a device now. Raises Refused where there is none."""
    real = _device(path)
    said = json.loads(system.run(["lsblk", "--json", "--bytes", "--tree", "--output", _COLUMNS, real]).stdout)
    row = next(one for one in said["blockdevices"] if one["path"] == real)
    below = list(_walk(row))
    used = [place for one in below for place in one["mountpoints"] or () if place]
    used += [f"{one['type']} {one['path']}" for one in below if one is not row and one["type"] != "part"]
    return Target(
        path, row["type"], int(row["size"] or 0), row["serial"] or "", bool(row["ro"]), _holds(row, below), used
    )


def _device(path: str) -> str:
    real = os.path.realpath(path)
    if not os.path.exists(real) or not stat.S_ISBLK(os.stat(real).st_mode):
        raise Refused(f"{path} is no disk or partition of this machine: lsblk lists those that are")
    return real


def _walk(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [row, *(found for child in row.get("children", ()) for found in _walk(child))]


def _holds(row: dict[str, Any], below: list[dict[str, Any]]) -> list[str]:
    parts = [one for one in below if one is not row and one["type"] == "part"]
    found = []
    for one in [row, *parts]:
        kind = signatures.signature(one["path"], _ask).type or ("a partition" if one in parts else "")
        if kind:
            label = f" ({one['partlabel']})" if one["partlabel"] else ""
            found.append(f"{kind} on {one['path']}{label}")
    # Of a partition lsblk says in which kind of table it stands.
    if row["pttype"] and not parts and row["type"] != "part":
        found.append(f"an empty {row['pttype']} partition table")
    if not found and row["size"] and not _blank(row["path"]):
        found.append("data that nobody here can name")
    return found


def _ask(argv: Any) -> Any:
    done = system.run(list(argv), check=False)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return None


def _blank(path: str) -> bool:
    with open(path, "rb", buffering=0) as stream:
        return not any(stream.read(_BEGINNING))


def choose(path: str, wipe: str = "", create: bool = False, size: int = 0) -> Target:
    """The target at `path`, if it may be taken. `wipe` must be the same path where it holds anything.

    `create`: make a file of `size` bytes there instead. Raises Refused.
    """
    if not path.startswith("/") or os.path.normpath(path) != path:
        raise Refused(
            f"{path or 'the target'} must be an absolute path, such as /dev/disk/by-id/…: name one with --target"
        )
    if create:
        return _file(path, size)
    found = look(path)
    if found.kind not in _KINDS:
        raise Refused(f"{path} is a {found.kind}: name a disk, a partition, or a new file together with --file")
    if found.read_only:
        raise Refused(f"{path} cannot be written to: it has a switch for that, or is broken")
    if found.used:
        raise Refused(f"{path} is in use ({', '.join(found.used)}): nothing was written to it; name another one")
    if found.holds and wipe != path:
        raise Refused(
            f"{path} holds {', '.join(found.holds)}: nothing was written to it; "
            f"to lose that for good, name it: --wipe {path}"
        )
    return found


def _file(path: str, size: int) -> Target:
    if path.startswith("/dev/"):
        raise Refused(f"{path} is a place for devices: leave --file away, or name a path on a disk with room")
    if os.path.lexists(path):
        raise Refused(f"{path} exists: name a path where nothing is")
    if not os.path.isdir(os.path.dirname(path)):
        raise Refused(f"the folder of {path} is not there: make it, then run again")
    return Target(path, "file", size)


def needed(amount: int) -> int:
    """Bytes that a target must have for data of this `amount`."""
    return luks.HEADER + _LEAST + amount + amount // _SHARE


def require_room(found: Target, amount: int) -> None:
    """Raises TooSmall, with the figures."""
    if found.size < needed(amount):
        raise TooSmall(
            f"{found.path} is too small: it has {_mb(found.size)}, and {_mb(needed(amount))} are needed for "
            f"{_mb(amount)} of data; nothing was written to it"
        )


def make_file(root: Root, path: str, size: int) -> None:
    """Make it, with all of its blocks: services must never find its disk full. Raises NoRoom, OSError."""
    folder = os.path.dirname(path)
    space.require(root, [space.Need(folder, size + space.SPARE, 1, f"for {path}, and some to spare")])
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mb(size: int) -> str:
    return f"{-(-size // 10**6)} MB"
