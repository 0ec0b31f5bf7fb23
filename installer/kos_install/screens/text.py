# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that fits a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 75  # of 80, less a margin on both sides and a scroll bar


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Names at the left, what they are at the right, wrapped there."""
    indent = max(len(name) for name, _value in rows) + 2
    return "\n".join(line for name, value in rows for line in _row(name, value, indent))


def _row(name: str, value: str, indent: int) -> list[str]:
    wrapped = [part for line in value.split("\n") for part in textwrap.wrap(line, WIDTH - indent) or [""]]
    return [f"{name if number == 0 else '':<{indent}}{part}" for number, part in enumerate(wrapped)]
