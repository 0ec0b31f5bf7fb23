# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs in the place of a service that stayed sick: which alternative of a generation is in force, and why."""

from __future__ import annotations

import os
import time
from typing import Any

from . import files, ledger, space, system
from .files import NodeError, Root

RECORD = "fallback.json"
READY = "alternatives.json"


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


def sizes(root: Root, manifest: dict[str, Any], lists: str | None = None) -> int:
    """Bytes that `fetch` would download; 0 where they cannot be found out."""
    rows = [row for wanted in _missing(root, manifest).values() for row in _to_fetch(root, wanted, lists)]
    return sum(dict(rows).values())


def fetch(root: Root, manifest: dict[str, Any]) -> int:
    """Put the packages of every alternative into apt's cache, so that moving to one needs no network; bytes fetched.

    What cannot be fetched is no reason to refuse a deploy: `readiness` tells of it.
    """
    total, ready = 0, {}
    for service, wanted in _missing(root, manifest).items():
        try:
            rows = system.packages_to_fetch(root, wanted) if wanted else []
            size = sum(size for _name, size in rows)
            space.require(root, space.for_packages(size, 0))
            book = ledger.load(root)
            book.downloads = sorted({*book.downloads, *(name for name, _size in rows)})
            ledger.save(root, book)
            if wanted:
                system.download_packages(root, wanted)
            total += size
            ready[service] = ""
        except (NodeError, OSError) as error:
            ready[service] = files.spoken(error) if isinstance(error, OSError) else str(error)
    if ready or os.path.exists(root.state(READY)):
        files.write_json(root.state(READY), ready)
    return total


def readiness(root: Root, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Every alternative of the generation in force, with why its packages are not here, or nothing."""
    ready = files.read_json(root.state(READY), {})
    return [
        {"service": row["service"], "instead": row["instead"], "lacks": ready.get(row["service"], "")}
        for row in manifest.get("alternatives", [])
    ]


def _missing(root: Root, manifest: dict[str, Any]) -> dict[str, list[str]]:
    """The packages of each alternative that are not installed."""
    states = system.package_states(root)
    return {
        row["service"]: [name for name in row["packages"] if states.get(name) != "installed"]
        for row in manifest.get("alternatives", [])
    }


def _to_fetch(root: Root, wanted: list[str], lists: str | None) -> list[tuple[str, int]]:
    try:
        return system.packages_to_fetch(root, wanted, lists) if wanted else []
    except NodeError:
        return []
