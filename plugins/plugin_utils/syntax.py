# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the readers of YAML, JSON and TOML share: the paths of values, and the limits that every file keeps."""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 40
MAX_VALUES = 50_000
MAX_INTEGER = 2**63 - 1

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]

# Half of a character, or one that no text holds.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Broken(Exception):
    """One thing in a text that keeps it from being read; `line` counts from 1, 0 where it is not known."""

    def __init__(self, message: str, line: int = 0, fix: str = "", path: KeyPath = ()) -> None:
        super().__init__(message)
        self.message, self.line, self.fix, self.path = message, line, fix, path


@dataclass(frozen=True)
class Parsed:
    """A mapping, and the line of each of its keys and items."""

    data: dict[str, Any] = field(default_factory=dict)
    lines: Lines = field(default_factory=dict)


class LineIndex:
    """The line of each offset of one text."""

    def __init__(self, text: str) -> None:
        self._ends = [match.start() for match in re.finditer("\n", text)]

    def at(self, offset: int) -> int:
        """The line of `offset`, counted from 1."""
        return bisect.bisect_left(self._ends, offset) + 1


def dotted(path: KeyPath) -> str:
    """``('services', 'llm_backends', 0)`` as ``services.llm_backends[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def too_deep(line: int) -> Broken:
    """What to raise below `MAX_DEPTH`."""
    return Broken(f"nested deeper than {MAX_DEPTH} levels", line)


def too_many(line: int) -> Broken:
    """What to raise beyond `MAX_VALUES`."""
    return Broken(f"holds more than {MAX_VALUES} values", line)


def written_twice(path: KeyPath, line: int) -> Broken:
    """What to raise for a key that stands twice in one mapping."""
    return Broken("written twice in one mapping", line, "keep one of them", path)


def known_key(key: str, mapping: dict[str, Any]) -> bool:
    """Whether `mapping` has `key` already; ``x`` and ``x+`` are one key, as their order would decide."""
    name = key.removesuffix("+")
    return name in mapping or f"{name}+" in mapping


def integer(text: str, line: int) -> int:
    """The whole number written in `text`. Raises Broken beyond 64 bits."""
    if len(text) > 24 or abs(int(text, 0)) > MAX_INTEGER:
        raise Broken("a number beyond 64 bits", line, "write a smaller one, or put it in quotes")
    return int(text, 0)


def refuse_unwritable(parsed: Parsed, control: bool = False) -> None:
    """Raise Broken for a text that no file can hold (unless `control`), and for numbers that are none."""
    _refuse_unwritable(parsed.data, (), parsed.lines, control)


def _refuse_unwritable(value: Any, path: KeyPath, lines: Lines, control: bool) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_unwritable(key, (*path, key), lines, control)
            _refuse_unwritable(inner, (*path, key), lines, control)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_unwritable(inner, (*path, index), lines, control)
    elif isinstance(value, str) and not control and _UNWRITABLE.search(value):
        shown = tuple(part if isinstance(part, int) else _UNWRITABLE.sub("�", part) for part in path)
        raise Broken("holds a control character", lines.get(path, 0), "write plain text", shown)
    elif isinstance(value, float) and not math.isfinite(value):
        raise Broken("is not a finite number", lines.get(path, 0), "write a number", path)
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise Broken("a number beyond 64 bits", lines.get(path, 0), "write a smaller one, or put it in quotes", path)
