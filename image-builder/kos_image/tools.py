# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What media are made with: Debian 13's programs, wherever they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Tools(Protocol):
    """Runs a program of Debian 13, which sees each folder at /build/NAME and no other path of the build machine."""

    def run(self, argv: Sequence[str], folders: Mapping[str, Path], environ: Mapping[str, str]) -> str:
        """Its standard output. Raises ImageError with what it said."""
