# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The partition table: a new one, or partitions beside those that stay.

sfdisk makes it on a copy of the disk's first and last sectors, in memory, where it is compared with what was asked for
before a disk is touched. Then it is copied to the disk half by half, as UEFI wants it, and the disk has taken one half
before the other begins: whenever the power goes, one of the two tables is whole. (systemd-repart places partitions
itself, and adopts strangers of the same type; a plan says where each one lies.)
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout

from ..errors import ApplyFailed
from ..hardware.reading import blank
from ..storage.actions import Kept, Partitioned, Table
from . import disks, release, wipe
from .context import Context
from .disks import Node
from .runner import Log, run, succeeds

# What is copied of each end of the disk: GPT's tables, wherever their maker put them, lie before the first partition.
_END = 1 << 20
# UEFI Specification 2.10, chapter 5: the header's own place, its copy's, usable sectors, the disk's id, its entries'.
_HEADER = struct.Struct("<8s16xQQQQ16sQII")
_MAGIC = b"EFI PART"
_OPTIONS = ("--wipe", "never", "--no-reread", "--no-tell-kernel", "--quiet")


@dataclass(frozen=True)
class _Half:
    """One of the two tables, in sectors: its header, and its entries with how many sectors they take."""

    header: int
    entries: int
    length: int


def perform(context: Context, action: Table) -> None:
    """Make the partitions. Raises ApplyFailed; then the table is as it was, or sfdisk's own."""
    disk = disks.find(action.disk)
    if action.wipe:
        release.free(disk.path, context.log)
    with _shadow(disk) as shadow:
        before = {} if action.wipe else _rows(shadow, disk.sector)
        _kept_as_planned(before, [*action.preserve, *action.remove])
        if action.remove:
            _still_empty(disk, before, action.remove)
            before = _without(shadow, disk, before, [one.number for one in action.remove], context.log)
        _make(shadow, disk, action, context.log)
        _compare(before, _rows(shadow, disk.sector), action)
        with wipe.quiet(disk.path):
            # From the first moment on nobody, firmware neither, takes what lay there before for a new partition's.
            disks.overwrite(disk.path, [piece for one in action.make for piece in wipe.ends(one.start, one.size)])
            _copy(shadow, disk)
    disks.reread(disk.path, context.log)
    _clean(disks.find(action.disk), action, context.log)
    if not stands(context, action):
        raise ApplyFailed(f"{disk.path} does not show the partitions that were made: it may be failing")


def stands(context: Context, action: Table) -> bool:
    """Whether the disk has just these partitions: those that were made, and those that stay."""
    rows = _rows_of(disks.find(action.disk))
    parts: list[Partitioned | Kept] = [*action.make, *action.preserve]
    wanted = {one.number: (one.start, one.size, one.uuid.lower()) for one in parts}
    return {number: (row["start"], row["size"], row["uuid"]) for number, row in rows.items()} == wanted


def remove(disk: Node, uuids: Collection[str], log: Log) -> None:
    """Take the partitions with these UUIDs out of the table; the others stay as they are. Raises ApplyFailed."""
    with _shadow(disk) as shadow:
        before = _rows(shadow, disk.sector)
        gone = [number for number, row in before.items() if row["uuid"] in uuids]
        if not gone:
            return
        _without(shadow, disk, before, gone, log)
        with wipe.quiet(disk.path):
            _copy(shadow, disk)
    for number in gone:
        # The kernel may know already, from udev.
        succeeds(["partx", "--delete", "--nr", str(number), disk.path], log=log)
    disks.settle()
    if {one.number for one in disks.look(disk.path)[0].partitions} & set(gone):
        raise ApplyFailed(f"{disk.path} still shows partitions that are gone: somebody holds them; restart the machine")


def _without(
    shadow: int, disk: Node, before: dict[int, dict[str, Any]], gone: Collection[int], log: Log
) -> dict[int, dict[str, Any]]:
    """Take partitions out of the copy of the table, which has the rows `before`; those left. Raises ApplyFailed."""
    delete = ["sfdisk", *_OPTIONS, "--sector-size", str(disk.sector), "--delete", f"/dev/fd/{shadow}"]
    run([*delete, *map(str, gone)], files=[shadow], log=log)
    left = {number: row for number, row in before.items() if number not in gone}
    if _rows(shadow, disk.sector) != left:
        raise ApplyFailed(f"sfdisk would change other partitions of {disk.path}: nothing was written")
    return left


def _still_empty(disk: Node, rows: dict[int, dict[str, Any]], gone: list[Kept]) -> None:
    """Raises ApplyFailed where one that would be removed is not what an install left that never began."""
    for one in gone:
        row = rows[one.number]
        never = row["type"].lower() == system_layout.TYPES["journal"] or blank(Path(disk.path), one.start)
        if not (never and row["name"].startswith(system_layout.PREFIX)):
            raise ApplyFailed(f"partition {one.number} is not empty any more: nothing was written; make a new plan")


def _rows_of(disk: Node) -> dict[int, dict[str, Any]]:
    return {one.number: {"start": one.start, "size": one.size, "uuid": one.part_uuid} for one in disk.partitions}


def _rows(shadow: int, sector: int) -> dict[int, dict[str, Any]]:
    """The partitions in a table, by number; starts and sizes in bytes, the rest as sfdisk has it."""
    path = f"/dev/fd/{shadow}"
    said = run(["sfdisk", "--sector-size", str(sector), "--json", path], files=[shadow])
    rows = {}
    for row in json.loads(said)["partitiontable"].get("partitions", ()):
        number = int(row.pop("node").removeprefix(path).lstrip("p"))
        place = {"start": row["start"] * sector, "size": row["size"] * sector, "uuid": row["uuid"].lower()}
        rows[number] = {**row, **place}
    return rows


def _kept_as_planned(rows: dict[int, dict[str, Any]], preserve: list[Kept]) -> None:
    """Raises ApplyFailed where the disk has other partitions than the plan wants to keep."""
    planned = {one.number: (one.start, one.size, one.uuid.lower()) for one in preserve}
    found = {number: (row["start"], row["size"], row["uuid"]) for number, row in rows.items()}
    for number in sorted({*planned, *found}):
        if planned.get(number) != found.get(number):
            raise ApplyFailed(
                f"partition {number} is not as it was when the plan was made: nothing was written; make a new plan"
            )


def _compare(before: dict[int, dict[str, Any]], after: dict[int, dict[str, Any]], action: Table) -> None:
    """Raises ApplyFailed where the table that would be written is not the one that was asked for."""
    made = {number: row for number, row in after.items() if number not in before}
    wanted = {one.number: (one.start, one.size, one.uuid.lower(), one.type.lower(), one.label) for one in action.make}
    got = {n: (row["start"], row["size"], row["uuid"], row["type"].lower(), row["name"]) for n, row in made.items()}
    if got != wanted or {number: after.get(number) for number in before} != before:
        raise ApplyFailed("sfdisk would not make the partitions as planned: nothing was written; make a new plan")


@contextmanager
def _shadow(disk: Node) -> Iterator[int]:
    """A file as long as the disk that has its two ends; it takes no more memory than these."""
    shadow = os.memfd_create("table")
    source = os.open(disk.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(shadow, disk.size)
        for at in (0, max(_END, disk.size - _END)):
            os.pwrite(shadow, os.pread(source, _END, at), at)
        yield shadow
    finally:
        os.close(source)
        os.close(shadow)


def _make(shadow: int, disk: Node, action: Table, log: Log) -> None:
    lines = ["label: gpt", *([f"label-id: {action.uuid}"] if action.uuid else [])] if action.wipe else []
    lines += ["unit: sectors", f"sector-size: {disk.sector}", ""]
    lines += [_line(one, disk.sector) for one in action.make]
    argv = [
        "sfdisk",
        *_OPTIONS,
        "--sector-size",
        str(disk.sector),
        *([] if action.wipe else ["--append"]),
        f"/dev/fd/{shadow}",
    ]
    log("\n".join(lines))
    run(argv, stdin="\n".join(lines) + "\n", files=[shadow], log=log)


def _line(one: Partitioned, sector: int) -> str:
    """Its number is the end of the name, which means nothing else here (sfdisk(8), named fields)."""
    place = f"start={one.start // sector}, size={one.size // sector}"
    return f'disk{one.number} : {place}, type={one.type}, uuid={one.uuid}, name="{one.label}"'


def _copy(shadow: int, disk: Node) -> None:
    """Write the table to the disk: the copy at its end first, then the one at its start, and what announces it last."""
    primary = _half(shadow, 1, disk.sector)
    (_magic, _here, there, *_rest) = _HEADER.unpack_from(os.pread(shadow, _HEADER.size, disk.sector))
    backup = _half(shadow, there, disk.sector)
    target = os.open(disk.path, os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC)
    try:
        for half in (backup, primary):
            for at, length in ((half.entries, half.length), (half.header, 1)):
                _sectors(shadow, target, at, length, disk.sector)
        _sectors(shadow, target, 0, 1, disk.sector)
        os.fsync(target)
    finally:
        os.close(target)


def _half(shadow: int, at: int, sector: int) -> _Half:
    head = os.pread(shadow, _HEADER.size, at * sector)
    magic, here, _there, _first, _last, _id, entries, count, size = _HEADER.unpack(head)
    if magic != _MAGIC or here != at:
        raise ApplyFailed("sfdisk made no table that can be read: nothing was written")
    return _Half(here, entries, -(-count * size // sector))


def _sectors(source: int, target: int, at: int, length: int, sector: int) -> None:
    content = os.pread(source, length * sector, at * sector)
    if os.pwrite(target, content, at * sector) != len(content):
        raise ApplyFailed("the disk took only a part of the partition table; start anew")


def _clean(disk: Node, action: Table, log: Log) -> None:
    """What lay where the new partitions are now must not be taken for something."""
    made = {one.number for one in action.make}
    for node in disk.partitions:
        if node.number in made:
            wipe.wipe(node, log)
    disks.settle()
