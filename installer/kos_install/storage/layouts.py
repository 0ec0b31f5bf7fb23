# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How partitions lie on a disk: a whole one, or the largest gap of one that somebody else is on as well."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names

from ..errors import Unplannable
from ..hardware.model import Disk, Machine, Partition
from .actions import Kept, Partitioned
from .selection import described
from .sizes import ALIGNMENT, BACKUP, GIB, MIB, down, human, up
from .words import HOLDS

# The firmware's partition holds a kernel and an initrd for each of some roots.
ESP_SIZE = GIB
_SMALL = MIB  # of what GRUB and the journal have each
SYSTEM_LEAST = 8 * 10**9  # the smallest disk, or gap, that takes all of it
DATA_LEAST = 4 * 10**9
_INT13 = 512  # bytes: what GRUB's boot.img takes a sector for, whatever the BIOS reads
_ENTRIES = 128  # of a GPT as everybody makes it
# Of our own (RFC 9562, name-based UUIDs): a random one.
_NAMESPACE = uuid.UUID("ed083258-b154-4279-99c6-f577aafdc615")


Role = Literal["system", "second", "data"]


@dataclass(frozen=True)
class Laid:
    """A disk as it will be. `shared_esp`: the firmware's partition is one that was there before, and stays."""

    disk: Disk
    role: Role
    wipe: bool
    make: tuple[Partitioned, ...]
    preserve: tuple[Kept, ...] = ()
    shared_esp: Partition | None = None
    remove: tuple[Kept, ...] = ()

    @property
    def suffix(self) -> str:
        """What the labels on it end in."""
        return names.SECOND if self.role == "second" else ""

    def made(self, label: str) -> Partitioned:
        """The new partition with this label and the disk's own suffix. Raises KeyError."""
        return {one.label: one for one in self.make}[label + self.suffix]

    def esp(self) -> str:
        """GPT's UUID of the partition that the firmware starts from."""
        return self.shared_esp.uuid if self.shared_esp else self.made(names.ESP).uuid


def identity(seed: str, what: str) -> str:
    """The UUID of a thing: another for every plan, and the same whenever this plan is made again."""
    return str(uuid.uuid5(_NAMESPACE, f"{seed}/{what}"))


def system(machine: Machine, disk: Disk, seed: str, role: Role = "system") -> Laid:
    """A whole disk for the system; of a mirror both are alike, but the journal is on the first alone.

    Raises Unplannable for a disk that this firmware cannot start from.
    """
    if machine.firmware == "bios" and disk.sector != _INT13:
        raise Unplannable(
            f"{described(disk)} has sectors of {disk.sector} bytes, which the boot code of GRUB cannot read: start this"
            " machine by UEFI, or take another disk"
        )
    suffix = names.SECOND if role == "second" else ""
    wanted = [(names.BIOS, "bios", _SMALL)] if machine.firmware == "bios" else []
    wanted.append((names.ESP, "esp", ESP_SIZE))
    wanted += [] if suffix else [(names.JOURNAL, "journal", _SMALL)]
    wanted.append((names.ROOT, f"root-{machine.architecture}", 0))
    return Laid(disk, role, True, _row(wanted, range(1, 9), _whole(disk), seed, suffix))


def data(disk: Disk, seed: str) -> Laid:
    """A whole disk for what the node keeps."""
    return Laid(disk, "data", True, _row([(names.DATA, "data", 0)], range(1, 9), _whole(disk), seed, ""))


def beside(machine: Machine, disk: Disk, seed: str, least: int) -> Laid:
    """The largest gap of a disk that keeps every partition it has; `least` is how large that must be, in bytes.

    An ESP that is large enough is shared; beside a smaller one (Windows makes 100 MB) the node has its own.
    Raises Unplannable for a disk that cannot be shared, with what to do.
    """
    _shareable(disk)
    gone = [one for one in disk.partitions if _ours(one)]
    disk = disk.model_copy(update={"partitions": [one for one in disk.partitions if one not in gone]})
    gap = max(gaps(disk.size, disk.partitions), key=lambda one: one[1] - one[0], default=(0, 0))
    if gap[1] - gap[0] < least:
        raise Unplannable(
            f"storage.layout: free_space needs a gap of {human(least)} on {described(disk)}, and its largest is"
            f" {human(gap[1] - gap[0])}: start the system that is there, make one of its partitions smaller (Windows:"
            " Disk Management, Shrink Volume), and start this medium again; or name another disk in storage.disk"
        )
    shared = next((one for one in disk.partitions if one.type == names.TYPES["esp"] and one.size >= ESP_SIZE), None)
    wanted = [] if shared else [(names.ESP, "esp", ESP_SIZE)]
    wanted += [(names.JOURNAL, "journal", _SMALL), (names.ROOT, f"root-{machine.architecture}", 0)]
    used = {one.number for one in disk.partitions}
    free = [number for number in range(1, _ENTRIES + 1) if number not in used]
    if len(free) < len(wanted):
        raise Unplannable(f"{described(disk)} has {len(used)} partitions: its table has no room for {len(wanted)} more")
    make = _row(wanted, free, gap, seed, "")
    kept = tuple(_kept(one, one is shared) for one in disk.partitions)
    return Laid(disk, "system", False, make, kept, shared, tuple(_kept(one, False) for one in gone))


def gaps(size: int, there: Iterable[Partition | Partitioned | Kept]) -> list[tuple[int, int]]:
    """Where nothing lies on a disk: (start, end) in bytes, aligned, without the room of GPT itself."""
    found, at = [], ALIGNMENT
    last = down(size) - BACKUP
    for start, end in sorted((one.start, one.start + one.size) for one in there):
        if down(min(start, last)) > at:
            found.append((at, down(min(start, last))))
        at = max(at, up(end))
    return [*found, (at, last)] if last > at else found


def _shareable(disk: Disk) -> None:
    if any(map(_ours, disk.partitions)) and not disk.unbegun:
        # Never: wipe it all. Somebody else's system is on it.
        raise Unplannable(
            f"{described(disk)} has partitions of a kOS already. If it was never finished, give it up where the"
            " installer offers to resume it; else remove its partitions kos-* yourself, or take another disk"
        )
    wrong = ""
    if disk.holds:
        wrong = f"has no partition table: as a whole it is {HOLDS.get(disk.holds, disk.holds)}"
    elif disk.table == "dos":
        wrong = "has an MBR partition table, which knows no room for it"
    elif disk.table != "gpt":
        wrong = "has no partition table, so nothing to be beside"
    if wrong:
        raise Unplannable(f"{described(disk)} {wrong}. Take the layout whole_disk, or another disk")


def _ours(one: Partition) -> bool:
    return one.label.startswith(names.PREFIX)


def _kept(one: Partition, shared: bool) -> Kept:
    what = one.os or HOLDS.get(one.holds) or one.label or one.fs_label or one.filesystem or one.holds
    return Kept(number=one.number, start=one.start, size=one.size, uuid=one.uuid, what=what, shared=shared)


def _whole(disk: Disk) -> tuple[int, int]:
    return ALIGNMENT, down(disk.size) - BACKUP


def _row(
    wanted: list[tuple[str, str, int]], numbers: range | list[int], room: tuple[int, int], seed: str, suffix: str
) -> tuple[Partitioned, ...]:
    """Partitions one behind the other: (label, type, size), where a size of 0 is all that is left."""
    at, made = room[0], []
    for number, (label, kind, asked) in zip(numbers, wanted, strict=False):
        size = asked or room[1] - at
        name = label + suffix
        key = identity(seed, f"partition/{name}")
        made.append(Partitioned(number=number, label=name, type=names.TYPES[kind], uuid=key, start=at, size=size))
        at += size
    return tuple(made)
