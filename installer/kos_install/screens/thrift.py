# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Less for a slow line: what a terminal shows already is not sent again, and no colours to one that has none.

Textual paints a new page several times while it settles, each time whole: 20 kB, which take two seconds on a serial
line of 115200 baud, and twenty at 9600.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.cells import cell_len

# A piece of a screen: where it is put, and what.
_PIECE = re.compile(r"\x1b\[(\d+);(\d+)H")
_STYLE = re.compile(r"\x1b\[([0-9;]*)m")
# Where what is on the screen is not known any more: another buffer, or one that was cleared.
_FORGETS = re.compile(r"\x1b\[\?1049[hl]|\x1b\[[23]J")
# What asks for a shape of the mouse's pointer (xterm's OSC 22), and for kitty's keyboard.
_STRANGE = re.compile(r"\x1b\]22;[^\x07]*\x07|\x1b\[[<>=][0-9;]*u")
# ECMA-48, SGR: bold, faint, italic, underlined, blinking, reversed; 39 and 49 are the colours there are anyway.
_ATTRIBUTES, _USUAL = {"1", "2", "3", "4", "5", "7"}, {"", "0", "39", "49"}
_TO_THE_END = "\x1b[K"
# What lies unchanged between two changes is cheaper to send than to jump over, up to here.
_GAP = 8

# A style as SGR has it, empty for none; a letter.
Cell = tuple[str, str]
_BLANK: Cell = ("", " ")


@dataclass
class Thrift:
    """What a terminal shows: row -> its cells, None where that is not known."""

    colours: bool
    shown: dict[int, list[Cell | None]] = field(default_factory=dict)

    def forget(self) -> None:
        """Somebody else has written to the terminal."""
        self.shown.clear()

    def less(self, text: str, width: int) -> str:
        """What of a text has to be sent to a terminal of `width` columns."""
        text = _STRANGE.sub("", text)
        if _FORGETS.search(text):
            self.forget()
        first, *rest = _PIECE.split(text)
        sent = [first]
        for row, column, what in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            sent += self._piece(int(row), int(column) - 1, what.removesuffix("\n").removesuffix("\r"), width)
        return "".join(sent)

    def _piece(self, row: int, column: int, what: str, width: int) -> Iterator[str]:
        cells = list(self._cells(what))
        line = self.shown.setdefault(row, [None] * width)
        if len(line) != width or column + len(cells) > width or any(cell_len(letter) != 1 for _, letter in cells):
            # Not a line as this one counts: sent as it is, and not relied on.
            self.shown[row] = [None] * width
            yield f"\x1b[{row};{column + 1}H{what}"
            return
        for start, end in _changes(line[column : column + len(cells)], cells):
            yield f"\x1b[{row};{column + start + 1}H{_written(cells[start:end], column + end == width)}"
        line[column : column + len(cells)] = cells

    def _cells(self, what: str) -> Iterator[Cell]:
        style, at = "", 0
        for match in _STYLE.finditer(what):
            yield from ((style, letter) for letter in what[at : match.start()])
            style, at = self._style(match[1]), match.end()
        yield from ((style, letter) for letter in what[at:])

    def _style(self, codes: str) -> str:
        kept = [code for code in codes.split(";") if code not in _USUAL]
        if self.colours:
            return ";".join(kept)
        return ";".join(code for code in kept if code in _ATTRIBUTES) if not {"38", "48"} & {*kept} else ""


def _changes(before: list[Cell | None], after: list[Cell]) -> Iterator[tuple[int, int]]:
    """From where to where cells differ; differences that lie close together are one."""
    start = end = -1
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new:
            continue
        if end >= 0 and place - end > _GAP:
            yield start, end
            start = -1
        start, end = (place if start < 0 else start), place + 1
    if start >= 0:
        yield start, end


def _written(cells: list[Cell], to_the_end: bool) -> str:
    blanks = next((number for number, cell in enumerate(reversed(cells)) if cell != _BLANK), len(cells))
    short = to_the_end and blanks > len(_TO_THE_END)
    sent, style = [], ""
    for own, letter in cells[: len(cells) - blanks] if short else cells:
        if own != style:
            sent.append(f"\x1b[0;{own}m" if own else "\x1b[0m")
            style = own
        sent.append(letter)
    return "".join([*sent, "\x1b[0m" if style else "", _TO_THE_END if short else ""])
