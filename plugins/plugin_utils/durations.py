# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lengths of time as configurations write them: ``90d``, ``7y``, or a number of seconds."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
PATTERN = r"^[1-9][0-9]{0,8}[smhdwy]$"

# A week becomes days, which every tool reads.
_STEPS = ("y", "d", "h", "m", "s")


class Span(str):
    """A length of time as text; equal lengths are written alike, whether they came as `3600`, `60m` or `1h`."""

    @property
    def seconds(self) -> int:
        """The same in seconds."""
        return int(self[:-1]) * SECONDS[self[-1]]


def span(value: str | int) -> Span:
    """The length of time that `value` means. Raises ValueError."""
    if isinstance(value, str) and not re.fullmatch(PATTERN, value, re.ASCII):
        raise ValueError("must be a length of time: a number with one of s m h d w y, such as 90d")
    length = value if isinstance(value, int) else Span(value).seconds
    if length <= 0:
        raise ValueError("must be longer than nothing")
    unit = next(unit for unit in _STEPS if length % SECONDS[unit] == 0)
    return Span(f"{length // SECONDS[unit]}{unit}")


Duration = Annotated[
    str | int,
    AfterValidator(span),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": PATTERN}, {"type": "integer", "exclusiveMinimum": 0}],
            "examples": ["30d", "7y", 3600],
        }
    ),
]
