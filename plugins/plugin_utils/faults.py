# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a configuration, said once, for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where a value was written: a file and a line counted from 1."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Fault:
    """One thing a person has to mend: where, which key, what is wrong, what to do."""

    message: str
    place: Place | None = None
    key: str = ""
    fix: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        key = f"{self.key}: " if self.key else ""
        fix = f" ({self.fix})" if self.fix else ""
        return f"{where}{key}{self.message}{fix}"

    def as_dict(self) -> dict[str, Any]:
        """The fault as plain data for ``--json``."""
        return {
            "file": self.place.file if self.place else None,
            "line": self.place.line if self.place else None,
            "key": self.key or None,
            "message": self.message,
            "fix": self.fix or None,
        }


def fault_from(data: dict[str, Any]) -> Fault:
    """The fault that `Fault.as_dict` wrote."""
    place = Place(data["file"], data["line"] or 0) if data["file"] else None
    return Fault(data["message"], place, data["key"] or "", data["fix"] or "")


class ConfigurationError(Exception):
    """Every fault found in one pass; its text lists one per line."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(dict.fromkeys(faults))
        super().__init__("\n".join(str(fault) for fault in self.faults))


def nearest(word: str, known: Iterable[str]) -> str:
    """The fix sentence for a mistyped word: the nearest known one, or the list of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
    return f"known: {shown}" if names else ""


def shown_path(path: Path) -> str:
    """A path as the user would type it: relative where it lies below the working directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError, RuntimeError):
        # Elsewhere, or nowhere: a link that leads to itself, a name with a NUL.
        return str(path)
