# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QR codes made of half blocks: two rows of a code are one line of text."""

from __future__ import annotations

import io

import segno


def qr(text: str) -> str:
    """The code of a text. Dark on a dark screen: its light parts are drawn, and a border that a camera needs."""
    code = segno.make(text, error="l", micro=False, boost_error=False)
    rows = [list(row) for row in code.matrix_iter(border=2)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    lines = io.StringIO()
    for above, below in zip(rows[::2], rows[1::2], strict=True):
        lines.write("".join(_block(bool(one), bool(two)) for one, two in zip(above, below, strict=True)) + "\n")
    return lines.getvalue().rstrip("\n")


def _block(above: bool, below: bool) -> str:
    """What is light of two modules, one above the other."""
    return {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}[above, below]
