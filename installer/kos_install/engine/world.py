# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine acts on, as functions: this machine, or in tests and dry runs a described one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..actions.context import Context
from ..answers import Answers
from ..hardware.model import Machine
from ..storage.actions import Plan


@dataclass(frozen=True)
class Found:
    """An install that was interrupted: its disk, how many of its actions are done, what was to be made."""

    disk: str
    done: int
    total: int
    answers: Answers
    plan: Plan
    # Makes it impossible to go on with it, and what it encrypted unreadable.
    abandon: Callable[[], None] = lambda: None
    # What else a person has to know: of other such installs, of disks that cannot be read.
    notes: tuple[str, ...] = ()


def _nothing(*_: Any) -> Any:
    return None


@dataclass(frozen=True)
class World:
    """Every side effect of the engine. `apply` raises ApplyFailed; `plan` raises Unplannable."""

    detect: Callable[[], Machine]
    plan: Callable[[Answers, Machine], Plan]
    picture: Callable[[Machine, Plan], str]
    apply: Callable[[Context], None]
    found: Callable[[Machine], Found | None] = _nothing
    # what was typed, and what the answers say is elsewhere, as the actions want it; raises Unplannable
    secrets: Callable[[Answers, Mapping[str, str]], dict[str, str]] = lambda _answers, typed: dict(typed)
    outcome: Callable[[Context], dict[str, Any]] = field(default=lambda _context: {})
    addresses: Callable[[], list[str]] = list
    medium: Callable[[], dict[str, Any]] = dict
    # verify the medium again, reboot, power_off: what a person does to the machine itself
    command: Callable[[str], None] = _nothing
    # opens SSH for somebody else, and says how to come in
    door: Callable[[], dict[str, Any]] = dict
