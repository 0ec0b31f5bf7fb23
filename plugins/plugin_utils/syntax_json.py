# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON, with the line of every value, and no key twice."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from .syntax import (
    MAX_DEPTH,
    MAX_VALUES,
    Broken,
    KeyPath,
    LineIndex,
    Lines,
    Parsed,
    integer,
    known_key,
    too_deep,
    too_many,
    written_twice,
)

_SPACE = re.compile(r"[ \t\n\r]*")


def parse_json(text: str) -> Parsed:
    """The mapping in `text`. Raises Broken."""
    if not text.strip():
        raise Broken("the file is empty", fix="write at least one key")
    reader = _Reader(text)
    data = reader.value(())
    reader.end()
    if not isinstance(data, dict):
        raise Broken("the file must be a mapping (a JSON object)", 1)
    return Parsed(data, reader.lines)


class _Reader:
    """A place in a text that moves on as values are read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._index = LineIndex(text)
        self._at = 0
        self._count = 0
        self.lines: Lines = {}
        self._scalars = json.JSONDecoder(
            parse_int=lambda digits: integer(digits, self._line), parse_constant=self._constant
        )

    @property
    def _line(self) -> int:
        return self._index.at(self._at)

    def value(self, path: KeyPath) -> Any:
        """The value that begins here."""
        self._skip()
        self.lines.setdefault(path, self._line)
        self._count += 1
        if self._count > MAX_VALUES:
            raise too_many(self._line)
        first = self._text[self._at : self._at + 1]
        if first in ("{", "["):
            if len(path) >= MAX_DEPTH:
                raise too_deep(self._line)
            return self._mapping(path) if first == "{" else self._list(path)
        return self._scalar()

    def end(self) -> None:
        """Refuse anything after the value."""
        self._skip()
        if self._at < len(self._text):
            self._refuse("nothing may follow the last }")

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self._at += 1
        while not self._take("}"):
            if result:
                self._expect(",")
            self._skip()
            line = self._line
            if self._text[self._at : self._at + 1] != '"':
                self._refuse("a key in double quotes is expected")
            key = self._scalar()
            if known_key(key, result):
                raise written_twice((*path, key), line)
            self.lines[(*path, key)] = line
            self._expect(":")
            result[key] = self.value((*path, key))
        return result

    def _list(self, path: KeyPath) -> list[Any]:
        result: list[Any] = []
        self._at += 1
        while not self._take("]"):
            if result:
                self._expect(",")
            result.append(self.value((*path, len(result))))
        return result

    def _scalar(self) -> Any:
        try:
            value, self._at = self._scalars.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._at = error.pos
            self._refuse(error.msg[:1].lower() + error.msg[1:])
        return value

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _take(self, character: str) -> bool:
        self._skip()
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def _expect(self, character: str) -> None:
        if not self._take(character):
            self._refuse(f"'{character}' is expected")

    def _constant(self, name: str) -> NoReturn:
        self._refuse(f"{name} is not JSON")

    def _refuse(self, problem: str) -> NoReturn:
        raise Broken(f"not valid JSON: {problem}", self._line)
