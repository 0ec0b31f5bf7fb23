# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The specification writes a few settings in two shapes; one meaning is left, so that layers of both merge."""

from __future__ import annotations

from typing import Any

from .documents import Document
from .syntax import KeyPath, Lines

# A value that is no mapping, and the key inside the mapping that it is short for.
SHORT_FOR: dict[KeyPath, str] = {
    ("security", "authentication"): "methods",
    ("security", "access_control"): "type",
    ("security", "compliance"): "frameworks",
    ("security", "encryption"): "scope",
    ("security", "intrusion_detection"): "level",
    ("monitoring", "alerting"): "level",
}


def written_out(document: Document) -> Document:
    """`document` with every short value in the mapping that it is short for; lines stay those of the value."""
    lines: Lines = dict(document.lines)
    data: dict[str, Any] = dict(document.data)
    for (section, key), name in SHORT_FOR.items():
        values = data.get(str(section))
        if not isinstance(values, dict):
            continue
        for spelt in (str(key), f"{key}+"):
            value = values.get(spelt)
            if value is None or isinstance(value, dict):
                continue
            inner = f"{name}+" if spelt.endswith("+") else name
            values = {**{k: v for k, v in values.items() if k != spelt}, str(key): {inner: value}}
            _move(lines, (section, spelt), (section, key), inner)
        data[str(section)] = values
    return Document(document.file, data, lines)


def _move(lines: Lines, old: KeyPath, new: KeyPath, name: str) -> None:
    moved = {path: line for path, line in lines.items() if path[: len(old)] == old}
    for path, line in moved.items():
        lines[(*new, name, *path[len(old) :])] = line
    if old in moved:
        lines[new] = moved[old]
