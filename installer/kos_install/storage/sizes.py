# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes of disks: what they are aligned to, and how people read them."""

from __future__ import annotations

MIB = 1 << 20
GIB = 1 << 30

# Everything begins and ends on one: right for sectors of 512 and 4096 bytes, and for what flash erases at once.
ALIGNMENT = MIB
# The copy of GPT at the end of a disk takes 33 sectors at most; one unit of the alignment holds it in either size.
BACKUP = ALIGNMENT

_STEPS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def up(offset: int) -> int:
    """The first aligned offset that is not before `offset`."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def down(offset: int) -> int:
    """The last aligned offset that is not behind `offset`."""
    return offset // ALIGNMENT * ALIGNMENT


def human(count: int) -> str:
    """Bytes as disks are sold: powers of ten, three digits; ``512 GB``, ``1.1 GB``, ``2 TB``."""
    for step, unit in _STEPS:
        if count >= 0.9995 * step:  # what is rounded to 1000 of the unit below
            digits = 0 if count >= 99.95 * step else 1
            return f"{count / step:.{digits}f}".removesuffix(".0") + f" {unit}"
    return f"{count} B"
