# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's own programs that read files of ours: told when those change, and when they go.

What each was told last is a stamp, like that of our own daemons: a digest of all it reads of us.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import changes, files, store, system
from .changes import Comparison
from .files import NodeError, Root
from .journal import Journal


def tell(root: Root, journal: Journal, comparison: Comparison, names: Iterable[str]) -> None:
    """Have each read its files again. Raises CommandFailed when one refuses them or ends over it."""
    for row in _rows(comparison.generation.manifest, names):
        files.remove(changes.stamp_path(root, row["name"]))
        journal.write("told", row=row)
        _tell(row)
        files.write(changes.stamp_path(root, row["name"]), comparison.inputs[row["name"]].encode())


def let_go(root: Root, journal: Journal | None, rows: Iterable[dict[str, Any]]) -> list[str]:
    """Tell each whose files have gone; a sentence for one that did not take it."""
    left = []
    for row in rows:
        files.remove(changes.stamp_path(root, row["name"]))
        if journal:
            journal.write("told", row=row)
        try:
            _tell(row)
        except NodeError as error:
            left.append(f"{row['name']}: {error}")
    return left


def gone(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Those that the manifest `before` told and `after` does not."""
    staying = {row["name"] for row in (after or {}).get("daemons", [])}
    return [row for row in (before or {}).get("daemons", []) if row["name"] not in staying]


def take_back(root: Root, journal: Journal, previous: store.Generation | None) -> None:
    """After the files are as they were: tell again whom the open transaction told."""
    told = {record["row"]["name"]: record["row"] for record in journal.of("told")}
    if not told:
        return
    let_go(root, None, told.values())
    inputs = changes.compare(root, previous, {}).inputs if previous else {}
    for name in told:
        if name in inputs:
            files.write(changes.stamp_path(root, name), inputs[name].encode())


def _rows(manifest: dict[str, Any], names: Iterable[str]) -> list[dict[str, Any]]:
    wanted = set(names)
    return [row for row in manifest.get("daemons", []) if row["name"] in wanted]


def _tell(row: dict[str, Any]) -> None:
    if row["unit"] and not _active(row["unit"]):
        # It reads its files when it starts.
        return
    system.run(row["tell"], timeout=60)
    if row["unit"] and not _active(row["unit"]):
        said = system.journal_tail(row["unit"], 3)
        raise system.CommandFailed(f"{row['unit']} ended over its new files: {' / '.join(said)}")


def _active(unit: str) -> bool:
    state = system.unit_states([unit])[unit].get("ActiveState")
    return state in ("active", "reloading")
