# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leave to destroy: whoever confirms has seen this very plan, and types what each wiped disk is called."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError
from ..hardware.model import Disk, Machine
from ..storage.actions import Plan, Table, Wipe


def wiped(plan: Plan, machine: Machine) -> list[Disk]:
    """The disks that lose all that is on them, in the order of the plan."""
    wiping = [action for action in plan.actions if isinstance(action, Wipe | Table)]
    paths = [action.disk.path for action in wiping if isinstance(action, Wipe) or action.wipe]
    disks = {disk.path: disk for disk in machine.disks}
    return [disks[path] for path in dict.fromkeys(paths)]


def called(disk: Disk, machine: Machine) -> str:
    """What a person types for this disk: its model; its serial number, or its path, where another has the same."""
    for own, others in ((disk.model, _others(disk, machine, "model")), (disk.serial, _others(disk, machine, "serial"))):
        if _plain(own) and _plain(own) not in others:
            return own
    return disk.path


def _others(disk: Disk, machine: Machine, field: str) -> set[str]:
    return {_plain(getattr(other, field)) for other in machine.disks if other.path != disk.path}


def check(plan: Plan, machine: Machine, digest: Any, typed: Any) -> None:
    """Nothing, where this plan was confirmed, and each wiped disk by what it alone is called. Raises UsageError.

    A serial number is enough even where the model would be; a model that two disks have never is.
    """
    if digest != plan.digest():
        raise UsageError("the plan has changed since it was shown: look at it again")
    words = [typed] if isinstance(typed, str) else list(typed)
    said = [_plain(str(word)) for word in words]
    for disk in wiped(plan, machine):
        name = called(disk, machine)
        names = {_plain(name), _plain(disk.serial)} - _others(disk, machine, "serial")
        found = next((word for word in said if word and word in names), None)
        if found is None:
            raise UsageError(f"to wipe {disk.path}, type what it is called: {name}")
        said.remove(found)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
