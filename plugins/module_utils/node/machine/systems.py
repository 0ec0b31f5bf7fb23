# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node remembers of its own systems: which were made and why, which came up well, which did not.

It lies with the data, not in a root: it must not go back when the root does. It is for people and for what is decided
next; what boots is said by the entries on the EFI partition alone.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .. import files
from ..files import Root
from .slots import Slot

FOLDER = "/var/lib/kos-system"
RECORD, TRIALS = f"{FOLDER}/record.json", f"{FOLDER}/trials"
PRISTINE = 0
_KEPT_FAILED = 3
# A boot that left no word: neither the gate nor anything after it was reached.
_SILENT = "it was started and never reached its gate (see journalctl --boot -1): the kernel, the initrd or a mount"
_SUBVOLUME = re.compile(r"^@root\.(\d+)$")


@dataclass(frozen=True)
class Known:
    """One boot entry: its root's number, why it was made, and what became of it.

    `state`: ``making``, ``staged``, ``published``, ``good`` or ``failed``.
    """

    root: int
    kernel: str = ""
    why: str = "update"
    state: str = "making"
    made: int = 0
    packages: int = 0
    reason: str = ""
    # What the running root was like when the snapshot was taken.
    base: str = ""


@dataclass(frozen=True)
class Record:
    """All of them by number, the highest number that was ever used, and those that are never pruned."""

    known: dict[int, Known] = field(default_factory=dict)
    last: int = 0
    pinned: tuple[int, ...] = ()

    def put(self, number: int, row: Known) -> Record:
        """With another row."""
        return replace(self, known={**self.known, number: row}, last=max(self.last, number))

    def without(self, numbers: Iterable[int]) -> Record:
        """Less these rows; what failed last stays known."""
        failed = sorted(number for number, row in self.known.items() if row.state == "failed")
        gone = {*numbers, *failed} - {*failed[-_KEPT_FAILED:]}
        return replace(self, known={number: row for number, row in self.known.items() if number not in gone})


def load(root: Root) -> Record:
    """What was remembered; nothing where there is nothing."""
    data = files.read_json(root.join(RECORD), {})
    rows = {int(number): Known(**row) for number, row in data.get("known", {}).items()}
    return Record(rows, data.get("last", 0), tuple(data.get("pinned", ())))


def save(root: Root, record: Record) -> None:
    """Remember, on disk when this returns. Raises OSError."""
    files.write_json(root.join(RECORD), asdict(record))


def subvolumes(top: str) -> list[int]:
    """The numbers of the root subvolumes that are there."""
    return sorted(int(match[1]) for name in os.listdir(top) if (match := _SUBVOLUME.match(name)))


def next_number(record: Record, entries: Sequence[Slot], roots: Sequence[int]) -> int:
    """One that was never used: what a failed attempt left behind can then not count against the next."""
    return max([record.last, PRISTINE, *record.known, *roots, *(slot.number for slot in entries)]) + 1


def settled(root: Root, record: Record, running: int, own_root: int, entries: Sequence[Slot]) -> Record:
    """The record after a look at what the boot loader made of the entries."""
    found = {slot.number: slot for slot in entries}
    if running not in record.known:
        record = record.put(running, Known(own_root, why="install", state="good", made=int(time.time())))
    for number, row in record.known.items():
        slot = found.get(number)
        if number == running and slot is not None and slot.good:
            record = record.put(number, replace(row, state="good", reason=""))
        elif number != running and row.state == "published" and (slot is None or slot.left == 0):
            record = record.put(number, replace(row, state="failed", reason=reason(root, number)))
        elif row.state in ("making", "staged") and number != running:
            record = record.put(number, replace(row, state="failed", reason="it was interrupted before it was whole"))
    return record


def note_trial(root: Root, number: int, text: str) -> None:
    """Keep what the gate said of a boot that failed; it survives the way back. Raises OSError."""
    path = root.join(f"{TRIALS}/{number}")
    lines = (files.read(path) or b"") + (json.dumps({"time": int(time.time()), "text": text}) + "\n").encode()
    files.write(path, lines)


def reason(root: Root, number: int) -> str:
    """Why a candidate failed, as its last gate said it."""
    lines = (files.read(root.join(f"{TRIALS}/{number}")) or b"").splitlines()
    return str(json.loads(lines[-1])["text"]) if lines else _SILENT


def superfluous(record: Record, running: int, entries: Sequence[Slot], lost: Collection[int] = ()) -> list[int]:
    """Entries that may go: all but the running one, the newest other one that is good, pinned ones and one that waits.

    A person who goes back finds the one before; a failed one's root stays until the next attempt, to be looked at.
    Those that are `lost` are nothing to go to.
    """
    found = [slot for slot in entries if slot.number not in lost or slot.number == running]
    others = [slot.number for slot in found if slot.good and slot.number != running]
    waiting = [slot.number for slot in found if not slot.good and slot.left != 0 and not slot.staged]
    pinned = [slot.number for slot in found if slot.number in record.pinned]
    kept = {running, *others[-1:], *pinned, *waiting}
    return [slot.number for slot in entries if slot.number not in kept]


def summary(root: Root, running: int) -> dict[str, Any]:
    """For status: what runs, what there is, what failed last, what waits for a restart."""
    record = load(root)
    failed = [number for number, row in record.known.items() if row.state == "failed" and row.why != "install"]
    latest = max(failed, default=None)
    good = [number for number, row in record.known.items() if row.state == "good"]
    if latest is not None and latest < running:
        latest = None
    waiting = [number for number, row in record.known.items() if row.state == "published" and number != running]
    return {
        "slot": running,
        "slots": sorted({*good, running}),
        "proved": running in good,
        "waiting": max(waiting, default=None),
        "failed": None if latest is None else {"slot": latest, "reason": record.known[latest].reason},
        "pinned": list(record.pinned),
    }
