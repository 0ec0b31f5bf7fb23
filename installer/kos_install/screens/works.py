# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is being worked on, so that no screen ever stands still without saying why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .words import _

_COUNTED_FROM = 1.0  # seconds

# What the engine is asked that takes its time -> how that is called, and the events that end it.
ASKED: Mapping[str, tuple[Callable[[], str], frozenset[str]]] = MappingProxyType({
    "plan": (lambda: _("Making the plan"), frozenset({"plan", "refused"})),
    "confirm": (lambda: _("Beginning the install"), frozenset({"state", "refused"})),
    "resume": (lambda: _("Taking the install up again"), frozenset({"state", "refused"})),
    "retry": (lambda: _("Beginning again"), frozenset({"state", "refused"})),
    "abandon": (lambda: _("Giving the install up, and looking at this machine"), frozenset({"state", "refused"})),
    "stop": (lambda: _("Stopping as soon as this step can be left"), frozenset({"failed", "done", "refused"})),
    "door": (lambda: _("Opening the door"), frozenset({"door", "refused"})),
    "reboot": (lambda: _("Restarting this machine"), frozenset({"refused"})),
    "power_off": (lambda: _("Switching this machine off"), frozenset({"refused"})),
})  # fmt: skip


@dataclass
class Works:
    """What was begun and is not over: its name -> what to call it, and since when."""

    begun: dict[str, tuple[str, float]] = field(default_factory=dict)

    def begin(self, name: str, said: str) -> None:
        """From now on it is worked on."""
        self.begun[name] = (said, time.monotonic())

    def end(self, name: str) -> None:
        """It is over, or was never begun."""
        self.begun.pop(name, None)

    def told(self, event: str) -> None:
        """What an event of the engine ends."""
        for name in [name for name in self.begun if name in ASKED and event in ASKED[name][1]]:
            self.end(name)

    def lost(self) -> None:
        """The engine cannot be reached: what it was asked is not answered any more."""
        for name in ASKED:
            self.end(name)

    def said(self, now: float | None = None) -> str:
        """The newest of them, and for how long it has been going on; empty where nothing is."""
        if not self.begun:
            return ""
        text, since = list(self.begun.values())[-1]
        took = (time.monotonic() if now is None else now) - since
        return f"{text} ... {took:.0f} s" if took >= _COUNTED_FROM else f"{text} ..."
