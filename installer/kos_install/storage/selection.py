# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which disk: each is allowed or refused, with the reasons, and exactly one may be left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..answers import DiskSelector
from ..errors import Unplannable
from ..hardware.model import Disk, Machine
from .sizes import human

_BY = "/dev/disk/"


@dataclass(frozen=True)
class Candidate:
    """A disk and why it cannot be the one; without a reason it can."""

    disk: Disk
    reasons: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def candidates(
    machine: Machine, selector: DiskSelector, least: int, taken: Mapping[str, str] | None = None
) -> list[Candidate]:
    """Every disk of the machine, with what speaks against it.

    `least` is the smallest size in bytes; `taken`: path of a disk that is chosen already -> for what.
    """
    return [
        Candidate(disk, (*_unfit(disk, selector, least, taken or {}), *_twin(disk, machine), *_unlike(disk, selector)))
        for disk in machine.disks
    ]


def pick(found: Iterable[Candidate], role: str) -> Disk:
    """The one disk that is allowed; `role` says in a sentence what it is for: *the system*.

    Raises Unplannable, with every candidate and every reason, where none or several are.
    """
    found = list(found)
    left = [one.disk for one in found if one.allowed]
    if len(left) == 1:
        return left[0]
    if not found:
        raise Unplannable("this machine has no disk: check its cables and, in the firmware, its disk controller")
    if not left:
        rows = [f"  {described(one.disk)}: {'; '.join(one.reasons)}" for one in found]
        raise Unplannable("\n".join([f"no disk can take {role}:", *rows]))
    rows = [f"  {described(disk)}{_by_id(disk)}" for disk in left]
    raise Unplannable("\n".join([f"{len(left)} disks could take {role}; name one by serial, by_id or path:", *rows]))


def described(disk: Disk) -> str:
    """A disk in a few words: ``/dev/sda (Samsung SSD 870, 500 GB, serial S6PTNM0R)``."""
    serial = f"serial {disk.serial}" if disk.serial else "no serial number"
    return f"{disk.path} ({', '.join(filter(None, (disk.model, human(disk.size), serial)))})"


def names(disk: Disk) -> list[str]:
    """What a disk may be called where its end is confirmed."""
    return [*([disk.serial] if disk.serial else []), *map(_base, disk.by_id)]


def _by_id(disk: Disk) -> str:
    return f", by_id: {disk.by_id[0]}" if disk.by_id else ""


def _twin(disk: Disk, machine: Machine) -> list[str]:
    """Nobody could tell the two apart right before one is written to; or they are two paths to one disk."""
    same = [
        other.path for other in machine.disks if disk.serial and other.serial == disk.serial and other.path != disk.path
    ]
    return [f"{' and '.join(same)} has the same serial number: unplug one, or one of two paths to it"] if same else []


def _unfit(disk: Disk, selector: DiskSelector, least: int, taken: Mapping[str, str]) -> list[str]:
    """What speaks against a disk, whoever asks for it."""
    if disk.medium:
        return ["this system was started from it"]
    reasons = []
    if disk.path in taken:
        reasons.append(f"it is taken for {taken[disk.path]} already")
    if disk.read_only:
        reasons.append("it is read-only: some have a switch for that")
    if not disk.size:
        reasons.append("nothing is in it")
    elif disk.size < least:
        reasons.append(f"too small: {human(least)} needed")
    if (disk.removable or disk.bus == "usb") and not _named(selector):
        reasons.append("it can be pulled out: name it to use it")
    return reasons


def _named(selector: DiskSelector) -> bool:
    return any((selector.serial, selector.by_id, selector.path, selector.model, selector.bus == "usb"))


def _unlike(disk: Disk, selector: DiskSelector) -> list[str]:
    """In what a disk is not the one that was asked for."""
    wanted = {
        "serial": selector.serial is None or disk.serial == selector.serial,
        "by_id": selector.by_id is None or selector.by_id.rpartition("/")[2] in map(_base, disk.by_id),
        "path": selector.path is None or _at(disk, selector.path),
        "model": selector.model is None or disk.model.strip().casefold() == selector.model.strip().casefold(),
        "bus": selector.bus is None or disk.bus == selector.bus,
        "min_gb": selector.min_gb is None or disk.size >= selector.min_gb * 10**9,
        "max_gb": selector.max_gb is None or disk.size <= selector.max_gb * 10**9,
    }
    unlike = [f"{key} {getattr(selector, key)}" for key, same in wanted.items() if not same]
    return [f"not the {', '.join(unlike)} that was asked for"] if unlike else []


def _at(disk: Disk, path: str) -> bool:
    return path == disk.path or (path.startswith(_BY) and _base(path) in map(_base, disk.by_id))


def _base(name: str) -> str:
    return name.rpartition("/")[2]
