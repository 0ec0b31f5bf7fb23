# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Updates of the whole system: a candidate beside what runs, tried by the boot loader, kept only when it is well.

At no moment does anything write to the running root or to its boot entry. A run that was cut off anywhere leaves what
runs as it was; the next one cleans up. Every attempt has a number of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .. import bundle, files, system
from ..files import Busy, NodeError, Root
from ..journal import Journal
from . import candidate, data, keeping, layout, partitions, recovery, secureboot, slots, systems
from .candidate import Upgraded
from .layout import Layout
from .slots import Entry
from .systems import Known, Record

TRIES = 3
_CHANGED = "this node was changed after the update was prepared, and the update would lose that: prepare it again"
BASELINE = f"{systems.FOLDER}/baseline.json"


class NothingStaged(NodeError):
    """There is no candidate to publish, or it is not of what runs now."""


class WaitsForStart(NodeError):
    """A change of the running system would be lost with the next start."""


def begin(root: Root) -> tuple[Layout, list[str]]:
    """What runs, and its ESPs, with all subvolumes mounted for this process. Raises NodeError."""
    here = layout.require(root)
    layout.apart()
    layout.mount_top(here)
    return here, layout.esps()


def _require_quiet(root: Root) -> None:
    if Journal(root).open:
        raise Busy("a change of this node is under way: wait for its end (kai status), then run again")


def stage(root: Root, fresh: bool = False) -> dict[str, Any]:
    """Make a candidate with all packages up to date; it boots only once it is published.

    `fresh`: make one even where no package is newer. Raises NodeError, OSError.
    """
    here, esps = begin(root)
    with files.lock(root), layout.alone():
        _require_quiet(root)
        record = keeping.tidied(root, here, esps)
        number = _next_number(record, esps)
        row = Known(number, made=int(time.time()), base=candidate.fingerprint(root))
        record = record.put(number, row)
        systems.save(root, record)
        try:
            candidate.snapshot(here.root, number)
            with candidate.entered(here, number):
                made = candidate.upgrade(number, bundle.source_of(root))
                if made.packages or fresh:
                    stage_everywhere(root, esps, entry_of(number, number, made, here.arguments))
        except (NodeError, OSError) as error:
            give_up(root, esps, record, number, error)
            raise
        if not made.packages and not fresh:
            _drop(esps, number)
            systems.save(root, replace(record, known={n: r for n, r in record.known.items() if n != number}))
            return {"slot": None, "packages": [], "kernel": made.version}
        _note_baseline(root)
        row = replace(row, state="staged", kernel=made.version, packages=len(made.packages))
        systems.save(root, record.put(number, row))
        return {"slot": number, "packages": made.packages, "kernel": made.version}


def give_up(root: Root, esps: Sequence[str], record: Record, number: int, error: Exception) -> None:
    """Remove what was made of a candidate, and remember why. Raises NodeError, OSError."""
    _drop(esps, number)
    said = files.spoken(error) if isinstance(error, OSError) else str(error)
    systems.save(root, record.put(number, replace(record.known[number], state="failed", reason=said)))


def next_number(root: Root, esps: Sequence[str]) -> int:
    """A number for a new system that none ever had."""
    return _next_number(systems.load(root), esps)


def _next_number(record: Record, esps: Sequence[str]) -> int:
    return systems.next_number(record, partitions.together(esps), systems.subvolumes(layout.TOP))


def entry_of(number: int, own_root: int, made: Upgraded, arguments: Sequence[str]) -> Entry:
    """The boot entry `number` of the root subvolume `own_root`."""
    words = layout.arguments_for(arguments, own_root)
    return Entry(number, f"kOS, system {number} ({made.version})", made.kernel, made.initrd, words, TRIES)


def stage_everywhere(root: Root, esps: Sequence[str], entry: Entry) -> None:
    """Stage a boot entry on each ESP, signed where they take no other. Raises NodeError, OSError."""
    for esp in esps:
        kind = slots.kind_of(esp)
        slots.stage(esp, entry, kind, secureboot.key(root) if kind == "uki" else None)


def _drop(esps: Sequence[str], number: int) -> None:
    _take_away(esps, number)
    candidate.delete(number)


def _take_away(esps: Sequence[str], number: int) -> None:
    for esp in esps:
        if slots.has(esp, number):
            slots.remove(esp, number)


def _note_baseline(root: Root) -> None:
    """What works now, so that the gate of the candidate can tell what does not any more."""
    running = ["systemctl", "list-units", "--type=service", "--state=running", "--plain", "--no-legend"]
    names = [line.split()[0] for line in system.run(running).stdout.decode().splitlines() if line.strip()]
    files.write_json(root.join(BASELINE), {"running": names, "routed": routed()})


def routed() -> bool:
    """Whether this machine knows a way out of its own network."""
    said = [system.run(["ip", family, "route", "show", "default"], check=False).stdout for family in ("-4", "-6")]
    return any(text.strip() for text in said)


def publish(root: Root) -> dict[str, Any]:
    """Let the staged candidate be tried at the next start. Raises NothingStaged, OSError."""
    _here, esps = begin(root)
    with files.lock(root), layout.alone():
        _require_quiet(root)
        record = systems.load(root)
        staged = [number for number, row in record.known.items() if row.state == "staged"]
        if not staged:
            raise NothingStaged("no update of the system is ready: make one with kai update")
        number = staged[-1]
        if record.known[number].base != candidate.fingerprint(root):
            raise NothingStaged(_CHANGED)
        with_it = [esp for esp in esps if slots.has(esp, number)]
        if not with_it:
            raise NothingStaged("the boot entry of the update is on no EFI partition any more: prepare it again")
        # Should this be cut off between the two, the next look finds an entry that is not published and drops it.
        systems.save(root, record.put(number, replace(record.known[number], state="published")))
        for esp in with_it:
            slots.publish(esp, number)
        keeping.brought(esps, [number])
        return {"slot": number}


def recheck(root: Root) -> dict[str, Any]:
    """Before this machine stops: let no candidate be tried that lacks what was changed since it was made.

    Raises NodeError, OSError.
    """
    here, esps = begin(root)
    withdrawn = []
    with layout.alone():
        record = systems.load(root)
        now = candidate.fingerprint(root)
        for number, row in record.known.items():
            # One that goes back to another state on a person's word has no base: it is meant to lose what is here.
            if number == here.slot or row.state != "published" or row.base in ("", now):
                continue
            record = record.put(number, replace(row, state="failed", reason=_CHANGED))
            _take_away(esps, number)
            withdrawn.append(number)
        if withdrawn:
            systems.save(root, record)
    return {"withdrawn": withdrawn}


def settle(root: Root) -> dict[str, Any]:
    """Look at what the boot loader made of the entries, and remember it. Raises NodeError, OSError."""
    here, esps = begin(root)
    with layout.alone():
        keeping.looked_at(root, here, esps)
    return status(root) or {}


def level(root: Root) -> None:
    """Let every ESP that is there have what the others have. Raises NodeError, OSError."""
    here, esps = begin(root)
    with layout.alone():
        keeping.tidied(root, here, esps)


def bless(root: Root) -> dict[str, Any]:
    """Say that what runs came up well, on every ESP; then drop what is not needed to go back. Raises NodeError."""
    here, esps = begin(root)
    with layout.alone():
        newer = [esp for esp in esps if partitions.ahead(esp, esps, here.slot)]
        # One that lacks it, or was cut off before it was published there, gets it now.
        keeping.brought(esps, [here.slot])
        for esp in esps:
            if slots.has(esp, here.slot, published=True):
                if esp not in newer:
                    slots.bless(esp, here.slot)
                _offer_recovery(esp, here.slot)
        files.remove(root.join(f"{systems.TRIALS}/{here.slot}"))
        keeping.tidied(root, here, esps)
        data.sweep(root)
    candidate.forget_cache()
    return status(root) or {}


def _offer_recovery(esp: str, number: int) -> None:
    """That there is a way to repair this machine must not decide whether it is well."""
    try:
        recovery.offer(esp, number)
    except (NodeError, OSError) as error:
        sys.stderr.write(f"the boot menu has no newer recovery entry: {error}\n")


def back(root: Root, number: int | None) -> dict[str, Any]:
    """Choose another system for the next start: the one before, or `number`. Raises NodeError, OSError."""
    here, esps = begin(root)
    with layout.alone():
        entries = partitions.together(esps)
        others = [slot.number for slot in entries if slot.number != here.slot and slot.good]
        if number is None:
            number = max(others, default=None)
        if number is None or number not in {slot.number for slot in entries if not slot.staged} - {here.slot}:
            kept = ", ".join(map(str, others)) or "no other"
            raise slots.NoSuchSlot(f"this machine has no system {number or ''} to go to (it keeps {kept})")
        keeping.brought(esps, [number])
        for esp in esps:
            if not slots.has(esp, number, published=True):
                continue
            slots.bless(esp, number)
            for slot in slots.listing(esp):
                if slot.number > number and not slot.staged and slot.left != 0:
                    slots.reject(esp, slot.number)
    return {"from": here.slot, "to": number}


def drop(root: Root) -> dict[str, Any]:
    """Do without a candidate that is prepared, or waits for the next start. Raises NodeError, OSError."""
    here, esps = begin(root)
    with layout.alone():
        record = keeping.looked_at(root, here, esps)
        for number, row in record.known.items():
            if number != here.slot and row.state in ("staged", "published"):
                _drop(esps, number)
                record = record.put(number, replace(row, state="failed", reason="a person did without it"))
        systems.save(root, record)
        keeping.tidied(root, here, esps)
    return status(root) or {}


def require_none_waiting(root: Root) -> None:
    """Raise WaitsForStart where the next start tries a system that would not have a change that is made now."""
    found = status(root)
    if found and found["waiting"]:
        raise WaitsForStart(
            f"system {found['waiting']} is tried at the next start, and would not have this change: "
            "restart this machine first, or do without that system: kos-system drop"
        )


def pin(root: Root, number: int, keep: bool) -> dict[str, Any]:
    """Never prune system `number`, or do so again. Raises NoSuchSlot, OSError."""
    with layout.alone():
        record = systems.load(root)
        if number not in record.known:
            raise slots.NoSuchSlot(f"there is no system {number} (known: {', '.join(map(str, record.known))})")
        pinned = {*record.pinned, number} if keep else {*record.pinned} - {number}
        systems.save(root, replace(record, pinned=tuple(sorted(pinned))))
    return status(root) or {}


def status(root: Root) -> dict[str, Any] | None:
    """For status; None on a machine that was not laid out by the installer."""
    here = layout.find(root)
    return systems.summary(root, here.slot) if here else None
