# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far an install has come, as lines: pure, so that a screen and a plain terminal say the same."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..storage.sizes import human
from .model import Session
from .words import _

_DONE, _SKIPPED, _STARTED = "done", "skipped", "started"
# A rate that was measured for a shorter time than this says nothing of what is to come.
_TOLD_FROM = 3.0  # seconds
_COUNTED_FROM = 2.0


@dataclass
class Clock:
    """When each action was first and last seen to move, for what is left of it."""

    begun: dict[str, tuple[float, int]] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)

    def took(self, name: str, now: float | None = None) -> float:
        """Seconds that an action has been seen at work."""
        now = time.monotonic() if now is None else now
        return now - self.seen.setdefault(name, now)

    def left(self, session: Session, name: str, now: float | None = None) -> float | None:
        """Seconds that an action is still going to take, where that can be told."""
        seen = session.progress.get(name)
        if not seen or not seen["total"] or session.state == "failed":
            return None
        now = time.monotonic() if now is None else now
        since, first = self.begun.setdefault(name, (now, seen["done"]))
        moved, took = int(seen["done"]) - first, now - since
        if took < _TOLD_FROM or moved <= 0:
            return None
        return float(seen["total"] - seen["done"]) * took / moved


def called(kind: str) -> str:
    """What an action does, in words."""
    words = {
        "release": _("Let go of the disk"),
        "wipe": _("Wipe the disk"),
        "table": _("Partition the disk"),
        "journal": _("Begin the journal"),
        "luks": _("Encrypt"),
        "btrfs": _("Make the file system"),
        "fat": _("Make the boot partition"),
        "mount": _("Mount everything"),
        "unpack": _("Unpack the system"),
        "configure": _("Make it this machine"),
        "converge": _("Set up the profile and its services"),
        "boot": _("Install the boot loader"),
        "verify": _("Prove that all is as asked"),
        "finish": _("Make it bootable"),
    }
    return words.get(kind, kind)


def lines(session: Session, clock: Clock, width: int = 30) -> list[str]:
    """Each action of the plan, what is done of it, and how long it takes yet."""
    return [_line(session, clock, action, width) for action in session.plan.get("plan", {}).get("actions", [])]


def _line(session: Session, clock: Clock, action: dict[str, str], width: int) -> str:
    state = session.actions.get(action["id"], {}).get("state", "")
    mark = {_DONE: "x", _SKIPPED: "x", _STARTED: ">"}.get(state, " ")
    said = f"[{mark}] {called(action['kind'])}"
    if state == _SKIPPED:
        return f"{said} ({_('done before')})"
    if state != _STARTED:
        return said
    seen = session.progress.get(action["id"])
    if not seen or not seen["total"]:
        took = clock.took(action["id"])
        # Nothing else moves in a line that counts no bytes, and the key of a disk takes its time.
        return f"{said} ... {took:.0f} s" if took >= _COUNTED_FROM and session.state != "failed" else f"{said} ..."
    return (
        f"{said:<{width}} {bar(seen['done'], seen['total'])} {_amount(seen)}{_left(clock.left(session, action['id']))}"
    )


def share(session: Session) -> tuple[int, int]:
    """How many actions are over, of how many."""
    actions = session.plan.get("plan", {}).get("actions", [])
    over = [row for row in session.actions.values() if row["state"] in {_DONE, _SKIPPED}]
    return len(over), len(actions)


def bar(done: int, total: int, width: int = 12) -> str:
    """A share as a picture of letters."""
    full = min(width, width * done // total) if total else 0
    return "[" + "#" * full + "-" * (width - full) + "]"


def _amount(seen: dict[str, int | str]) -> str:
    if seen["unit"] == "bytes":
        return f"{human(int(seen['done']))} / {human(int(seen['total']))}"
    return f"{seen['done']} / {seen['total']}"


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return ", " + _("{count} s left").format(count=max(1, round(seconds)))
    return ", " + _("{count} min left").format(count=round(seconds / 60))
