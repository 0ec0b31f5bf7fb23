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
from .cautions import cautions
from .layouts import Laid
from .refusals import refusals, shortfalls, unattended
from .selection import candidates, described, pick
from .steps import steps


@dataclass(frozen=True)
class Circumstances:
    """What is neither answered nor hardware.

    `attended`: somebody is there to type and to confirm; `test`: the medium was built for tests; `minimum`: the least
    that the profile asks for, where it is known.
    """

    attended: bool = True
    test: bool = False
    minimum: Minimum | None = None


def plan(answers: Answers, machine: Machine, circumstances: Circumstances = Circumstances()) -> Plan:
    """What will happen, in order. Raises Unplannable with every reason that is found."""
    faults = refusals(answers, machine, circumstances.test)
    try:
        disks = _disks(answers, machine, circumstances.minimum)
    except Unplannable as error:
        raise Unplannable(*faults, *error.faults) from error
    kept = disks.data or disks.system
    short, accepted = shortfalls(answers, machine, circumstances.minimum, kept.size // 10**9)
    faults += short
    seed = seed_of(answers, disks.all())
    laid = _laid(answers, machine, disks, seed, least_sizes(answers, circumstances.minimum)[0], faults)
    faults += _copies(machine, laid)
    if not circumstances.attended:
        faults += unattended(answers, machine, [one.disk.path for one in laid if one.wipe])
    if faults:
        raise Unplannable(*faults)
    said = [*cautions(answers, machine, laid), *(f"accepted: {row}" for row in accepted)]
    return Plan(actions=steps(answers, machine, laid, seed), warnings=said)


def wiped(plan: Plan) -> list[str]:
    """Paths of the disks that a plan destroys, in its order."""
    return [action.disk.path for action in plan.actions if action.kind == "wipe"]


def seed_of(answers: Answers, disks: list[Disk]) -> str:
    """What every UUID of a plan is made from: the answers, and the disks as they are told apart."""
    told = [disk.serial or min(disk.by_id, default=disk.path) for disk in disks]
    said = json.dumps([answers.model_dump(mode="json"), told, [disk.size for disk in disks]], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


@dataclass(frozen=True)
class _Disks:
    system: Disk
    second: Disk | None
    data: Disk | None

    def all(self) -> list[Disk]:
        return [disk for disk in (self.system, self.second, self.data) if disk]


def least_sizes(answers: Answers, minimum: Minimum | None) -> tuple[int, int]:
    """The smallest disk in bytes for the system, and for the data where they have one of their own."""
    asked = 0
    if minimum and minimum.disk_gb and "disk" not in answers.accept_shortfall:
        asked = int(minimum.disk_gb * 10**9 * TOLERANCE)
    if answers.storage.data:
        return layouts.SYSTEM_LEAST, max(layouts.DATA_LEAST, asked)
    return max(layouts.SYSTEM_LEAST, asked), 0


def _disks(answers: Answers, machine: Machine, minimum: Minimum | None) -> _Disks:
    storage, taken = answers.storage, dict[str, str]()
    system_least, data_least = least_sizes(answers, minimum)

    def choose(selector: DiskSelector | None, least: int, role: str, called: str) -> Disk | None:
        if selector is None:
            return None
        disk = pick(candidates(machine, selector, least, taken), role)
        taken[disk.path] = called
        return disk

    system = choose(storage.disk, system_least, "the system", "the disk of the system")
    second = choose(storage.second, system_least, "the other half of the mirror", "the other half of the mirror")
    data = choose(storage.data, data_least, "the data", "the disk of the data")
    assert system is not None  # noqa: S101  (its selector is never None)
    return _Disks(system, second, data)


def _laid(answers: Answers, machine: Machine, disks: _Disks, seed: str, least: int, faults: list[str]) -> list[Laid]:
    """Each disk as it will be; what speaks against the layout is added to `faults`."""
    laid = []
    try:
        if answers.storage.layout == "free_space":
            laid.append(layouts.beside(machine, disks.system, seed, least))
        else:
            laid.append(layouts.system(machine, disks.system, seed))
    except Unplannable as error:
        faults += error.faults
    if disks.second:
        laid.append(layouts.system(machine, disks.second, seed, "second"))
    if disks.data:
        laid.append(layouts.data(disks.data, seed))
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
