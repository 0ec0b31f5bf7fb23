# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TOML: the values are the standard library's, the lines come from a walk over the same text.

Dates and times stay text as typed, as they do in YAML and JSON.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from typing import Any

from .syntax import (
    MAX_DEPTH,
    MAX_VALUES,
    Broken,
    KeyPath,
    LineIndex,
    Lines,
    Parsed,
    known_key,
    too_deep,
    too_many,
    written_twice,
)

_SPACE = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    "|".join([
        r'"""(?:\\.|(?!""")[^\\])*"{3,5}',
        r"'''(?:(?!''').)*'{3,5}",
        r'"(?:\\.|[^"\\\n])*"',
        r"'[^'\n]*'",
    ]), re.DOTALL,
)  # fmt: skip
_SCALAR = re.compile(r"[^,\]}#\n]+")
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_DATES = (datetime.date, datetime.time)


def parse_toml(text: str) -> Parsed:
    """The mapping in `text`. Raises Broken."""
    text = text.replace("\r\n", "\n")
    walk = _Walk(text)
    lost = False
    try:
        walk.document()
    except _Lost:
        lost = True
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        line = int(place[1] or 0) if place else 0
        problem = _PLACE.sub("", str(error))
        raise Broken(f"not valid TOML: {problem[:1].lower()}{problem[1:]}", line) from error
    except (RecursionError, ValueError) as error:
        message = "nested too deeply" if isinstance(error, RecursionError) else "a number beyond 64 bits"
        raise Broken(message) from error
    if lost:
        raise Broken("not TOML as it is usually written", walk.line, "write one key = value a line")
    if not data:
        raise Broken("the file is empty", fix="write at least one key")
    _refuse_twice(data, (), walk.lines)
    return Parsed(_as_typed(data, (), walk.raw), walk.lines)


def _as_typed(value: Any, path: KeyPath, raw: dict[KeyPath, str]) -> Any:
    if isinstance(value, dict):
        return {key: _as_typed(inner, (*path, key), raw) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_typed(inner, (*path, index), raw) for index, inner in enumerate(value)]
    return raw[path] if isinstance(value, _DATES) else value


def _refuse_twice(value: Any, path: KeyPath, lines: Lines) -> None:
    if isinstance(value, dict):
        seen: dict[str, Any] = {}
        for key, inner in value.items():
            if known_key(key, seen):
                raise written_twice((*path, key), lines[(*path, key)])
            seen[key] = inner
            _refuse_twice(inner, (*path, key), lines)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_twice(inner, (*path, index), lines)


class _Lost(Exception):
    """The walk does not know where it is; the standard library says what is wrong."""


class _Walk:
    """A place in a TOML text that moves on; it collects the line and the raw text of every value."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._index = LineIndex(text)
        self._at = 0
        self._count = 0
        self._tables: dict[KeyPath, int] = {}
        self.lines: Lines = {(): 1}
        self.raw: dict[KeyPath, str] = {}

    @property
    def line(self) -> int:
        """Where the walk is."""
        return self._index.at(self._at)

    def document(self) -> None:
        """Walk over everything. Raises _Lost, and Broken for a text that is too deep or too long."""
        table: KeyPath = ()
        self._skip(_GAP)
        while self._at < len(self._text):
            if self._take("[["):
                table = self._header("]]", many=True)
            elif self._take("["):
                table = self._header("]", many=False)
            else:
                self._pair(table)
            self._skip(_GAP)

    def _header(self, end: str, many: bool) -> KeyPath:
        line, keys = self.line, self._keys()
        self._expect(end)
        path: KeyPath = ()
        for depth, key in enumerate(keys, 1):
            path = (*path, key)
            self.lines.setdefault(path, line)
            if many and depth == len(keys):
                self._tables[path] = self._tables.get(path, -1) + 1
            if path in self._tables:
                path = (*path, self._tables[path])
                self.lines.setdefault(path, line)
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self.line
        path = table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._expect("=")
        self._value(path)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_SPACE)
            keys.append(self._key())
            if len(keys) > MAX_DEPTH:
                raise too_deep(self.line)
            self._skip(_SPACE)
            if not self._take("."):
                return keys

    def _key(self) -> str:
        if self._text[self._at : self._at + 1] in ('"', "'"):
            quoted = self._match(_STRING)
            try:
                return str(tomllib.loads(f"key = {quoted}")["key"])
            except ValueError as error:
                raise _Lost from error
        return self._match(_BARE)

    def _value(self, path: KeyPath) -> None:
        self._skip(_GAP)
        self._count += 1
        if self._count > MAX_VALUES:
            raise too_many(self.line)
        if len(path) > MAX_DEPTH:
            raise too_deep(self.line)
        self.lines.setdefault(path, self.line)
        if self._text[self._at : self._at + 1] in ('"', "'"):
            self._match(_STRING)
        elif self._take("["):
            self._items(path)
        elif self._take("{"):
            self._inline(path)
        else:
            self.raw[path] = self._match(_SCALAR).strip()

    def _items(self, path: KeyPath) -> None:
        index = 0
        while not self._taken("]"):
            self._value((*path, index))
            index += 1
            if not self._taken(","):
                self._skip(_GAP)
                self._expect("]")
                return

    def _inline(self, path: KeyPath) -> None:
        while not self._taken("}"):
            self._pair(path)
            if not self._taken(","):
                self._skip(_GAP)
                self._expect("}")
                return

    def _taken(self, text: str) -> bool:
        self._skip(_GAP)
        return self._take(text)

    def _take(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def _expect(self, text: str) -> None:
        self._skip(_SPACE)
        if not self._take(text):
            raise _Lost

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _Lost
        self._at = match.end()
        return match.group()

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
