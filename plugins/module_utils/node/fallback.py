# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs in the place of a service that stayed sick: which alternative of a generation is in force, and why."""

from __future__ import annotations

import time
from typing import Any

from . import files
from .files import Root

RECORD = "fallback.json"


def in_force(root: Root) -> dict[str, Any] | None:
    """The fallback in force: generation, service, instead, since (seconds since 1970), because; None without one."""
    row: dict[str, Any] | None = files.read_json(root.state(RECORD), None)
    return row


def note(root: Root, number: int, row: dict[str, Any] | None, because: str) -> None:
    """Record that generation `number` runs with the alternative `row`, or, with None, as it was asked for."""
    if row is None:
        files.remove(root.state(RECORD))
        return
    since = int(time.time())
    record = {"generation": number, "service": row["service"], "instead": row["instead"], "since": since}
    files.write_json(root.state(RECORD), {**record, "because": because})


def said(row: dict[str, Any]) -> str:
    """A fallback in force, as a sentence for people."""
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(row["since"]))
    return f"{' and '.join(row['instead'])} instead of {row['service']} since {since}, because {row['because']}"
