# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as a picture: each disk *before | after*, 79 columns, readable without colour and on a serial line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from ..hardware.model import Disk, Machine, Partition
from .actions import Kept, Partitioned, Plan, Table
from .layouts import gaps
from .selection import described
from .sizes import GIB, human
from .words import HOLDS, purpose

_HALF = 38
_SIZE = 7
# A gap is worth a line from here on; GPT and alignment leave smaller ones everywhere.
_GAP = GIB
_EMPTY = "(nothing)"
_ROWS = 20  # of what was there: a screen has 24


def picture(machine: Machine, plan: Plan) -> str:
    """Every disk of the machine: those the plan changes as before and after, the others in a line each."""
    tables = {action.disk.path: action for action in plan.actions if isinstance(action, Table)}
    changed = [line for disk in machine.disks if disk.path in tables for line in (*_disk(disk, tables[disk.path]), "")]
    kept = [f"{_cut(described(disk), 65)} {_why(disk)}" for disk in machine.disks if disk.path not in tables]
    return "\n".join([*changed, *kept]).rstrip() + "\n"


def _why(disk: Disk) -> str:
    return "(this medium)" if disk.medium else "stays as is"


def _disk(disk: Disk, table: Table) -> Iterator[str]:
    yield _cut(described(disk), 79)
    stays = "every partition but empty ones of kOS stays" if table.remove else "every partition stays"
    yield "  EVERYTHING ON THIS DISK IS LOST" if table.wipe else f"  {stays}, new ones are added"
    yield _row("  before", "  after")
    yield f"{'-' * _HALF} | {'-' * _HALF}"
    for before, after in zip_longest(_few(_before(disk)), _few(_after(table)), fillvalue=""):
        yield _row(before, after)


def _row(before: str, after: str) -> str:
    return f"{before:<{_HALF}} | {after}".rstrip()


def _before(disk: Disk) -> list[str]:
    rows = [(part.start, _cell(str(part.number), _content(part), part.size)) for part in disk.partitions]
    if rows or disk.table == "gpt":
        rows += _free(disk.size, disk.partitions)
    if not rows:
        return [_cell("", HOLDS.get(disk.holds) or disk.filesystem or _EMPTY, disk.size)]
    return [text for _start, text in sorted(rows)]


def _after(table: Table) -> list[str]:
    rows = [(part.start, _cell(f"+{part.number}", _made(part), part.size)) for part in table.make]
    rows += [(part.start, _cell(f"={part.number}", _kept(part), part.size)) for part in table.preserve]
    rows += _free(table.disk.size, [*table.make, *table.preserve])
    return [text for _start, text in sorted(rows)]


def _free(size: int, there: Iterable[Partition | Partitioned | Kept]) -> Iterator[tuple[int, str]]:
    return ((start, _cell("", "free", end - start)) for start, end in gaps(size, there) if end - start >= _GAP)


def _few(rows: list[str]) -> list[str]:
    return rows if len(rows) <= _ROWS else [*rows[: _ROWS - 1], f"     … and {len(rows) - _ROWS + 1} more"]


def _content(part: Partition) -> str:
    """What a person knows it by: its system, else its name, else what it is made of."""
    return part.os or HOLDS.get(part.holds) or part.label or part.fs_label or part.filesystem or part.holds or "unknown"


def _made(part: Partitioned) -> str:
    return f"{part.label}: {purpose(part.label)}"


def _kept(part: Kept) -> str:
    return f"{part.what or 'unknown'}{' (shared)' if part.shared else ''}"


def _cell(number: str, what: str, size: int) -> str:
    room = _HALF - 5 - 1 - _SIZE
    return f"{number:>4} {_cut(what, room):<{room}} {human(size):>{_SIZE}}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"
