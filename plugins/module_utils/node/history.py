# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of each generation on this node, newest last."""

from __future__ import annotations

import time
from typing import Any

from . import files
from .files import Root

_KEPT = 200


def read(root: Root) -> list[dict[str, Any]]:
    """Rows of time (seconds since 1970), generation, id and result (``committed`` or ``reverted``).

    ``began`` is when the change did. A row with ``alternative`` is of a move to, or back from, a fallback of that
    generation.
    """
    rows: list[dict[str, Any]] = files.read_json(root.state("history.json"), [])
    return rows


def record(
    root: Root, number: int, identity: str, result: str, alternative: str = "", began: int | None = None
) -> None:
    """Add a row."""
    row: dict[str, Any] = {"time": int(time.time()), "generation": number, "id": identity, "result": result}
    row |= {"alternative": alternative} if alternative else {}
    row |= {"began": began} if began else {}
    files.write_json(root.state("history.json"), [*read(root), row][-_KEPT:])
