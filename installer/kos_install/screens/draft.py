# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was answered so far: the answers file in the making, and beside it the secrets, which it never holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Draft:
    """`answers` is plain data, as the file has it; what was not answered is not in it.

    `scratch`: what a screen has to remember and no file: a passphrase typed again, a test of the keyboard.
    """

    answers: dict[str, Any] = field(default_factory=lambda: {"version": 1})
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    scratch: dict[str, Any] = field(default_factory=dict, repr=False)

    def get(self, path: str, default: Any = None) -> Any:
        """The answer at a path such as `storage.disk`, or what is taken for it where there is none."""
        value: Any = self.answers
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    def put(self, path: str, value: Any) -> None:
        """Answer; None takes an answer back, and with it a section that is then empty."""
        *sections, last = path.split(".")
        if value is None:
            self._drop(sections, last)
            return
        inner = self.answers
        for key in sections:
            inner = inner.setdefault(key, {})
        inner[last] = value

    def _drop(self, sections: list[str], last: str) -> None:
        chain = [self.answers]
        for key in sections:
            if not isinstance(chain[-1].get(key), dict):
                return
            chain.append(chain[-1][key])
        chain[-1].pop(last, None)
        for outer, key in zip(reversed(chain[:-1]), reversed(sections), strict=True):
            if outer[key]:
                return
            del outer[key]


def reader(path: str, default: Any) -> Callable[[Draft], Any]:
    """A function that reads the answer at a path."""
    return lambda draft: draft.get(path, default)


def writer(path: str, default: Any) -> Callable[[Draft, Any], None]:
    """A function that answers at a path; what equals the default is not written down."""
    return lambda draft, value: draft.put(path, None if value == default else value)
