# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From answers and a machine to a plan: pure, so that the same of both give the same, to the last UUID."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ansible_collections.kind.kos.plugins.plugin_utils.hardware import TOLERANCE
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Minimum

from ..answers import Answers, DiskSelector
from ..errors import Unplannable
from ..hardware.model import Disk, Machine
from . import layouts
from .actions import Plan
from .cautions import FOR_TESTS, cautions
from .layouts import Laid, Role
from .refusals import refusals, shortfalls, unattended
from .selection import candidates, described, pick
from .steps import steps

_ROLES: dict[Role, str] = {"system": "the system", "second": "the other half of the mirror", "data": "the data"}


@dataclass(frozen=True)
class Circumstances:
    """What is neither answered nor hardware.

    `attended`: somebody is there to type and to confirm; `test`: the medium was built for tests; `minimum`: the least
    that the profile asks for, where it is known, and `profile` whose it is.
    """

    attended: bool = True
    test: bool = False
    minimum: Minimum | None = None
    profile: str = ""


def plan(answers: Answers, machine: Machine, circumstances: Circumstances = Circumstances()) -> Plan:
    """What will happen, in order. Raises Unplannable with every reason that is found."""
    faults = refusals(answers, machine, circumstances.test)
    least = least_sizes(answers, circumstances.minimum)
    try:
        disks = _chosen(answers, machine, least)
        seed = seed_of(answers, machine, list(disks.values()))
        laid = _laid(answers, machine, disks, seed, least["system"])
    except Unplannable as error:
        raise Unplannable(*faults, *_short(answers, machine, circumstances), *error.faults) from error
    kept = disks.get("data", disks["system"])
    short, accepted = shortfalls(answers, machine, circumstances.minimum, circumstances.profile, kept.size // 10**9)
    faults += [*short, *_copies(machine, laid)]
    if not circumstances.attended:
        faults += unattended(answers, machine, [one.disk.path for one in laid if one.wipe])
    if faults:
        raise Unplannable(*faults)
    said = [
        *([FOR_TESTS] if circumstances.test else []),
        *cautions(answers, machine, laid),
        *(f"accepted: {row}" for row in accepted),
    ]
    return Plan(actions=steps(answers, machine, laid, seed), warnings=said)


def wiped(plan: Plan) -> list[str]:
    """Paths of the disks that a plan destroys, in its order."""
    return [action.disk.path for action in plan.actions if action.kind == "wipe"]


def seed_of(answers: Answers, machine: Machine, disks: list[Disk]) -> str:
    """What every UUID of a plan is made from: the answers, and the disks and the machine as they are told apart."""
    told = [disk.serial or min(disk.by_id, default=disk.path) for disk in disks]
    # Of many alike in a rack, with disks that have no serial number, no two may have the same UUIDs.
    # Some makers give all their boards one UUID.
    here = [machine.uuid, *sorted(card.mac for card in machine.nics)]
    said = json.dumps([answers.model_dump(mode="json"), told, [disk.size for disk in disks], here], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def least_sizes(answers: Answers, minimum: Minimum | None) -> dict[Role, int]:
    """The smallest disk in bytes for each role: the profile's minimum is asked of the one that keeps the data."""
    asked = 0
    if minimum and minimum.disk_gb and "disk" not in answers.accept_shortfall:
        asked = int(minimum.disk_gb * 10**9 * TOLERANCE)
    system = layouts.SYSTEM_LEAST if answers.storage.data else max(layouts.SYSTEM_LEAST, asked)
    return {"system": system, "second": system, "data": max(layouts.DATA_LEAST, asked)}


def _short(answers: Answers, machine: Machine, circumstances: Circumstances) -> list[str]:
    """What the machine lacks for the profile where no disk could be chosen: the disk only if it would do without it."""
    role: Role = "data" if answers.storage.data else "system"
    fit = candidates(machine, answers.storage.data or answers.storage.disk, least_sizes(answers, None)[role])
    largest = max((one.disk.size // 10**9 for one in fit if one.allowed), default=None)
    return shortfalls(answers, machine, circumstances.minimum, circumstances.profile, largest)[0]


def _chosen(answers: Answers, machine: Machine, least: dict[Role, int]) -> dict[Role, Disk]:
    """The disk of each role that is asked for. Raises Unplannable."""
    storage = answers.storage
    asked: dict[Role, DiskSelector | None] = {"system": storage.disk, "second": storage.second, "data": storage.data}
    found: dict[Role, Disk] = {}
    for role, selector in asked.items():
        if selector is not None:
            taken = {disk.path: _ROLES[other] for other, disk in found.items()}
            found[role] = pick(candidates(machine, selector, least[role], taken), _ROLES[role])
    return found


def _laid(answers: Answers, machine: Machine, disks: dict[Role, Disk], seed: str, least: int) -> list[Laid]:
    """Each disk as it will be. Raises Unplannable."""
    laid = []
    for role, disk in disks.items():
        if role == "data":
            laid.append(layouts.data(disk, seed))
        elif answers.storage.layout == "free_space":
            laid.append(layouts.beside(machine, disk, seed, least))
        else:
            laid.append(layouts.system(machine, disk, seed, role))
    return laid


def _copies(machine: Machine, laid: list[Laid]) -> list[str]:
    """Disks that stay and hold a UUID the plan writes or keeps: nobody could tell the two apart afterwards."""
    ours = {one.disk.path for one in laid}
    made = {part.uuid for one in laid for part in one.make}
    known = made | {part.uuid for one in laid for part in one.preserve if part.uuid}
    return [
        f"{described(disk)} is a copy of a disk that is written to, down to the UUIDs: take it out while you install"
        for disk in machine.disks
        if disk.path not in ours and any(part.uuid in known for part in disk.partitions)
    ]
