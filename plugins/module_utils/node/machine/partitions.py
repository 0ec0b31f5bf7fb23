# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The EFI partitions of a mirror: what they say together, and how one that was away, or was cut off, gets it all again.

Firmware starts from any of them, and asks nobody: what one of them names must be there, also while it is out of reach.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from .. import files
from ..files import Root
from . import grubstate, layout, slots, systems
from .slots import Slot

# Which roots each partition named when it was seen last.
SEEN = f"{systems.FOLDER}/partitions.json"


def together(esps: Sequence[str]) -> list[Slot]:
    """Every boot entry, by number. One that came up well did so whichever partition says it. Raises OSError."""
    found: dict[int, Slot] = {}
    for slot in (slot for esp in esps for slot in slots.listing(esp)):
        known = found.get(slot.number)
        found[slot.number] = _of_two(known, slot) if known else slot
    return [found[number] for number in sorted(found)]


def _of_two(one: Slot, other: Slot) -> Slot:
    """What is true of a slot: it is good where one is, staged where both are; tries are used up on either."""
    if one.good or other.good:
        return one if one.good else other
    if one.staged or other.staged:
        return other if one.staged else one
    return min(one, other, key=lambda slot: slot.left or 0)


def everywhere(esps: Sequence[str]) -> set[int]:
    """The numbers of the entries that every partition has."""
    return set.intersection(*({slot.number for slot in slots.listing(esp)} for esp in esps))


def bring(esp: str, esps: Sequence[str], numbers: Collection[int]) -> None:
    """Let `esp` have these slots as the others have them, as far as they may be started. Raises NodeError, OSError."""
    for slot in together(esps):
        if slot.number not in numbers or slot.staged:
            continue
        # More than one where a cut came while it was renamed.
        own = [one for one in slots.listing(esp) if one.number == slot.number]
        if all(one.staged for one in own):
            slots.copy(next(other for other in esps if slot in slots.listing(other)), esp, slot)
        elif slot.good and not all(one.good for one in own):
            slots.bless(esp, slot.number)


def ahead(esp: str, esps: Sequence[str], number: int) -> bool:
    """Whether a BIOS starts a newer system from `esp`, unknown to those from which it starts `number`.

    They were away then, and it is to stay so; where they do know it, a person went back from it.
    """
    good = grubstate.read(esp).good
    behind = [other for other in esps if grubstate.read(other).good == number]
    if good is None or good < number or not behind:
        return False
    return not any(slots.has(other, good, published=True) for other in behind)


def away(root: Root, esps: Sequence[str]) -> list[str]:
    """The places of those that cannot be reached now."""
    return [place for place in layout.firmware(root) if place not in esps and layout.UNMOUNTED + place not in esps]


def see(root: Root, esps: Sequence[str], root_of: Callable[[Slot], int]) -> None:
    """Remember which roots each partition names; of one out of reach, what it named last. Raises OSError."""
    if len(layout.firmware(root)) < 2:
        return
    before = _seen(root)
    named = {esp.removeprefix(layout.UNMOUNTED): sorted({*map(root_of, slots.listing(esp))}) for esp in esps}
    if {**before, **named} != before:
        files.write_json(root.join(SEEN), {**before, **named})


def held(root: Root, esps: Sequence[str], otherwise: Collection[int]) -> set[int]:
    """The roots that must stay for a partition out of reach; `otherwise`, where it was never seen."""
    before = _seen(root)
    return {number for place in away(root, esps) for number in before.get(place, otherwise)}


def _seen(root: Root) -> dict[str, list[int]]:
    found: dict[str, list[int]] = files.read_json(root.join(SEEN), {})
    return found
