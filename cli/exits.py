# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exit codes of every kOS command."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Stable, documented in docs/exit-codes.md."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    INVALID_CONFIGURATION = 3
    PREFLIGHT_FAILED = 4
    REVERTED = 5
    NOT_REVERTED = 6
