# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was told so far, for clients that come later, and whoever listens now."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

from .events import LIVE, NEWEST, OF_ACTION, PASSING, event

# Lines of the log that a client is told when it comes; the systemd journal has all of them.
LOGGED = 2000


class History:
    """Events in order. Of what is overtaken (a share of bytes, an older plan) only the newest is kept."""

    def __init__(self, listen: Callable[[dict[str, Any]], None] = lambda _event: None) -> None:
        self._listen = listen
        self._kept: dict[Any, dict[str, Any]] = {}
        self._number = 0
        self._lock = Lock()

    def add(self, name: str, fields: dict[str, Any]) -> None:
        """Number an event, keep it for who comes later (but no secret), pass it on.

        Raises KeyError outside the vocabulary.
        """
        with self._lock:
            self._number += 1
            told = {**event(name, **fields), "seq": self._number}
            if name not in LIVE | PASSING:
                key = self._key(name, fields)
                self._kept.pop(key, None)  # what is told again moves to its place in the order
                self._kept[key] = told
                self._shorten(name)
            self._listen(told)

    def replay(self) -> list[dict[str, Any]]:
        """What a client that comes now is told, in order."""
        with self._lock:
            return list(self._kept.values())

    def newest(self, name: str) -> dict[str, Any] | None:
        """The fields of the newest event of this name that has only one."""
        found = self._kept.get(name)
        return {key: value for key, value in found.items() if key not in {"event", "seq"}} if found else None

    def forget(self, *names: str) -> None:
        """Keep nothing of these any more: an install begins anew."""
        with self._lock:
            for key in [key for key, told in self._kept.items() if told["event"] in names]:
                del self._kept[key]

    def _key(self, name: str, fields: dict[str, Any]) -> Any:
        if name in NEWEST:
            return name
        return (name, fields["id"]) if name in OF_ACTION else self._number

    def _shorten(self, name: str) -> None:
        if name != "log":
            return
        logged = [key for key, told in self._kept.items() if told["event"] == "log"]
        for key in logged[:-LOGGED]:
            del self._kept[key]
