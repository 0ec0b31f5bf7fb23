# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make an earlier generation current again, through the same transaction and gate as a deploy."""

from __future__ import annotations

from typing import Any

from . import files, history, store, transaction
from .files import Root
from .transaction import Request


def rollback(root: Root, number: int | None) -> dict[str, Any]:
    """Make an earlier generation current again; without a number, the one before the current.

    Raises Refused when there is no such generation, SwitchFailed when it does not come up healthy.
    """
    active = store.current(root)
    rows = [row["number"] for row in store.listing(root)]
    if number is None:
        number = previous_number(root)
    target = store.load(root, number) if number is not None else None
    if target is None:
        wanted = f"there is no generation {number}" if number else "no other generation has been committed here"
        raise store.Refused(f"{wanted} (this node keeps {', '.join(map(str, rows)) or 'none'})")
    node = files.read_json(root.state("node.json"), {})
    staged, health = transaction.deploy(root, Request(target.id, node=node))
    return {
        "from": active.number if active else None,
        "to": target.number,
        "changes": len(staged.changes),
        "health": [row.as_dict() for row in health],
    }


def previous_number(root: Root) -> int | None:
    """The generation that was committed before the current one."""
    active = store.current(root)
    rows = [row for row in history.read(root) if not row.get("alternative")]
    committed = [row["generation"] for row in rows if row["result"] == "committed"]
    stored = {row["number"] for row in store.listing(root)}
    earlier = [number for number in committed if number in stored and active and number != active.number]
    return earlier[-1] if earlier else None
