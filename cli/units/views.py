# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units as a person reads them. Everything shown here is also there as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..view import counted

_SHORT = 16


def unit_view(unit: Mapping[str, Any]) -> RenderableType:
    """One unit: what it is, its images, where it comes from, who signed it."""
    made = unit["custody"]
    by = made.get("by", {})
    rows = [
        ("sha3-256", unit["id"]),
        ("trust", unit["trust"]),
        *((f"image {arch}", f"{row['repository']}@{row['digest']}") for arch, row in unit["images"].items()),
        ("version", ", ".join(sorted({str(row["tag"]) for row in unit["images"].values()}))),
        ("made", f"{made.get('at', 'not yet stated')} by {by.get('name', '?')} {by.get('fingerprint', '')}".strip()),
        ("why", made.get("why") or "not said"),
        ("intent", _intent(made)),
        ("made of", counted(len(unit["materials"]), "package")),
        ("signed by", "\n".join(unit["signatures"]) or "nobody"),
    ]
    table = _table("", "")
    table.show_header = False
    for label, value in rows:
        table.add_row(Text(label, style="dim"), Text(value))
    return Group(Text.assemble((unit["name"], "bold"), f": {unit['summary']}"), table)


def unit_store_view(units: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The store: its units, and its images."""
    if not units and not images:
        return Text("The unit store is empty: kai unit build NAME, or kai unit import FILE")
    parts: list[RenderableType] = []
    if units:
        table = _table("unit", "id", "trust", "signatures", "made")
        for unit in units:
            made, signatures = unit["custody"].get("at", ""), str(len(unit["signatures"]))
            table.add_row(Text(unit["name"], style="bold"), unit["id"][:_SHORT], unit["trust"], signatures, made)
        parts += [table, Text()]
    table = _table("image", "for", "digest")
    for image in images:
        table.add_row(image["repository"], image["architecture"], image["digest"])
    return Group(*parts, table)


def _intent(made: Mapping[str, Any]) -> str:
    replaces = made.get("replaces")
    return f"{made.get('intent', 'not said')}" + (f", replaces {replaces[:_SHORT]}…" if replaces else "")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
