# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What settings outside ``services:`` ask for, as data: a service, or an answer in a sentence.

Pure but for `load_asks`, which reads ``services/asks.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from .documents import KeyPath, dotted, read_document
from .models import Strict, parse

State = Literal["met", "elsewhere", "unavailable"]
ANY = "*"
OFF = ("false", "off", "none")


class Reply(Strict):
    """What one value of a setting gets: services to plan, or a sentence and what it amounts to."""

    services: list[str] = []
    state: State | None = None
    says: str | None = None

    @model_validator(mode="after")
    def _services_or_sentence(self) -> Reply:
        if bool(self.services) == bool(self.says) or bool(self.says) != bool(self.state):
            raise ValueError("needs either `services`, or `says` with its `state`")
        return self


class Asks(Strict):
    """For each settings key: its values (``*``: any other), and what each gets."""

    asks: dict[str, dict[str, Reply]]


NO_ASKS = Asks(asks={})


@dataclass(frozen=True)
class Asked:
    """One setting of a deployment that something answers; `path` is where it was written."""

    path: KeyPath
    value: str
    reply: Reply | None

    @property
    def key(self) -> str:
        """The key as a person writes it."""
        return dotted(tuple(part for part in self.path if isinstance(part, str)))


def load_asks(folder: Path) -> Asks:
    """The table of a services folder; empty where it has none. Raises ConfigurationError."""
    path = folder / "asks.yaml"
    if not path.is_file():
        return NO_ASKS
    document = read_document(path)
    return parse(Asks, document.data, document.place)


def asked(asks: Asks, settings: dict[str, Any]) -> Iterator[Asked]:
    """Every setting that `asks` has an answer for: first the profile's name, then in the order of `settings`.

    ``false``, ``off`` and ``none`` ask for nothing, so they are answered (by nothing) even where the table is silent.
    A list is answered when each of its items is.
    """
    for path, value in sorted(leaves(settings), key=lambda leaf: leaf[0] != ("profile",)):
        replies = asks.asks.get(".".join(path))
        if replies is None:
            continue
        items = value if isinstance(value, list) else [value]
        found = [_reply(replies, plain(item)) for item in items]
        if all(known for known, _reply_of in found):
            for index, (item, (_known, reply)) in enumerate(zip(items, found, strict=True)):
                yield Asked((*path, index) if isinstance(value, list) else path, plain(item), reply)


def _reply(replies: dict[str, Reply], text: str) -> tuple[bool, Reply | None]:
    """Whether the value is known, and what it gets."""
    reply = replies.get(text) or replies.get(ANY)
    return reply is not None or text in OFF, reply


def leaves(data: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is not a mapping, with its path; a list is one value."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def plain(value: object) -> str:
    """A value as YAML writes it: ``true``, ``90d``."""
    return str(value).lower() if isinstance(value, bool) else str(value)
