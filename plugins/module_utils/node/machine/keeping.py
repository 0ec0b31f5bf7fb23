# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which systems a machine keeps: what became of each, what goes, and that every EFI partition has those that stay.

A root goes only when no partition names it, one that is out of reach included.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence

from ..files import NodeError, Root
from . import candidate, data, layout, partitions, slots, systems
from .layout import Layout
from .slots import Slot
from .systems import Record


def looked_at(root: Root, here: Layout, esps: Sequence[str]) -> Record:
    """The record, after a look at what the boot loader made of the entries. Raises OSError."""
    before = systems.load(root)
    for number, row in before.known.items():
        if number != here.slot and row.why == "reset" and row.state == "published":
            data.hear(root, number)
    record = systems.settled(root, before, here.slot, here.root, partitions.together(esps))
    if record != before:
        systems.save(root, record)
    return record


def tidied(root: Root, here: Layout, esps: Sequence[str]) -> Record:
    """Let every ESP have what is kept; remove what earlier attempts left, and systems that nobody would go back to."""
    record = looked_at(root, here, esps)
    entries = partitions.together(esps)
    gone = systems.superfluous(record, here.slot, entries, _lost(record, here, esps, entries))
    # What runs comes first, then what goes gives its room to the others, and what was the only good one goes last.
    for numbers in ([here.slot], [slot.number for slot in entries if slot.number not in gone]):
        brought(esps, numbers)
        for esp in esps:
            for slot in slots.listing(esp):
                if slot.number in gone:
                    with contextlib.suppress(slots.NoSuchSlot):
                        slots.remove(esp, slot.number)
    root_of = _root_of(record)
    partitions.see(root, esps, root_of)
    good = {row.root for row in record.known.values() if row.state == "good"}
    needed = {*map(root_of, (slot for esp in esps for slot in slots.listing(esp))), *partitions.held(root, esps, good)}
    for number in systems.subvolumes(layout.TOP):
        if number not in {*needed, here.root, systems.PRISTINE}:
            candidate.delete(number)
    record = looked_at(root, here, esps).without(gone)
    systems.save(root, record)
    return record


def _root_of(record: Record) -> Callable[[Slot], int]:
    """The root of an entry, also of one that another record knows: a reset gave that a /var of its own."""
    return lambda slot: record.known[slot.number].root if slot.number in record.known else slots.root_of(slot)


def _lost(record: Record, here: Layout, esps: Sequence[str], entries: Sequence[Slot]) -> set[int]:
    """Entries that lead nowhere: without a root, done with while an ESP was away, or of data that a reset empties."""
    roots, common, root_of = systems.subvolumes(layout.TOP), partitions.everywhere(esps), _root_of(record)
    proved = any(slot.number == here.slot and slot.good for slot in entries)
    mine = data.of_root(here.root)
    lost = set()
    for slot in entries:
        row, own = record.known.get(slot.number), root_of(slot)
        # A number above the last is of a record of its own, which a reset with the data began: it is newer.
        forgotten = row is None and slot.number <= record.last and slot.number not in common
        failed = row is not None and row.state == "failed" and not slot.good
        # Only those before what runs: it is their data that were to go, and only once it came up well.
        emptied = proved and slot.number < here.slot and mine and mine != (data.of_root(own) or mine)
        pinned = slot.number in record.pinned
        if own not in roots or forgotten or ((failed or emptied) and not pinned):
            lost.add(slot.number)
    return lost


def brought(esps: Sequence[str], numbers: Sequence[int]) -> None:
    """Let every ESP have these slots. One that cannot take them must not decide about the others."""
    for esp in esps:
        try:
            partitions.bring(esp, esps, numbers)
        except (NodeError, OSError) as error:
            sys.stderr.write(f"{esp} does not have all that this machine could start: {error}\n")
