# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine tells: one JSON object a line, in a fixed vocabulary, in order.

Every event has `event`, and `seq` that counts from 1; a client ignores what it does not know. None ever holds a secret
but those in LIVE, which are sent to clients and are neither kept in the history nor written to a file.
"""

from __future__ import annotations

from typing import Any, Literal

State = Literal[
    "detecting", "answering", "planned", "applying", "verifying", "done", "failed"
]  # fmt: skip

# name of the event -> its other fields
VOCABULARY: dict[str, tuple[str, ...]] = {
    "state": ("state",),
    "medium": ("record", "verification"),  # what this system was started from, and how far it is proved
    "hardware": ("machine", "addresses"),
    "resumable": ("disk", "done", "total", "answers"),
    "notice": ("sentences",),  # what is amiss with this machine, and stands in nobody's way
    "draft": ("answers",),  # what a person has answered so far, for a screen that takes over
    "refused": ("faults",),  # answers that are wrong, or cannot be planned here; a request out of turn
    "plan": ("plan", "digest", "before_after", "wipes", "warnings", "secrets"),  # secrets: names that are still wanted
    "action": ("id", "kind", "state", "number", "total"),  # state: started, skipped, done
    "progress": ("id", "done", "total", "unit"),  # unit: bytes or steps
    "log": ("text",),
    "recovery_key": ("key",),
    "failed": ("sentence", "resumable"),
    "done": ("hostname", "addresses", "fingerprint", "next"),
    "door": ("addresses", "fingerprint", "password"),  # somebody may install over SSH
}

# Events with a secret: whoever watches sees them, the history does not hold them.
LIVE = frozenset({"recovery_key", "door"})
# An answer to who has just asked: a client that comes later has asked nothing, and took it for an answer to itself.
PASSING = frozenset({"refused"})
# Of these only the newest says anything; a client that comes later is not told the others.
NEWEST = frozenset({"state", "medium", "hardware", "resumable", "notice", "draft", "plan", "failed", "done"})
# Of these the newest of each action.
OF_ACTION = frozenset({"action", "progress"})


def event(name: str, **fields: Any) -> dict[str, Any]:
    """An event without its number. Raises KeyError for a word that is not in the vocabulary."""
    if set(fields) != set(VOCABULARY[name]):
        raise KeyError(f"{name} has {', '.join(VOCABULARY[name])}")
    return {"event": name, **fields}
