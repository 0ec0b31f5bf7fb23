# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the terminal can do: colours, line drawing, whether it is this machine's own."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.scrollbar import ScrollBarRender
from textual.theme import Theme

from .thrift import Thrift

# Terminals that are real ones, or nearly: no colours, letters alone.
Kind = Literal["poor", "plain", "rich"]
_PLAIN = ("vt100", "vt102", "vt220", "vt320", "ansi-m", "unknown")


_BULLET = "\u2022"  # what Textual shows of a secret; not every terminal has it


class Quiet(LinuxDriver):
    """Asks the terminal nothing that one of 1983, or a log of a serial line, would print: no mouse, no protocols."""

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        if sys.__stdout__ is not None:
            self._file = sys.__stdout__  # Textual takes the standard error, which goes to the journal here
        self._mouse = False
        self._kind = kind_of(os.environ)
        self._thrift = Thrift(colours=self._kind != "poor")

    def write(self, data: str) -> None:
        """Only what is new to the terminal; a rich one is quick, and gets all of it."""
        if self._kind != "rich":
            data = self._thrift.less(data.replace(_BULLET, "*"), self._get_terminal_size()[0])
        if data:
            super().write(data)

    def forget(self) -> None:
        """What the terminal shows is not known any more."""
        self._thrift.forget()

    def _request_terminal_sync_mode_support(self) -> None:
        pass

    def _query_in_band_window_resize(self) -> None:
        pass


class Blocks(ScrollBarRender):
    """A scroll bar of whole blanks, reversed: letters that every terminal has."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "]
    HORIZONTAL_BARS: ClassVar[list[str]] = [" "]


# Quiet, and of enough contrast for a tired eye: 7:1 (WCAG 2.2, 1.4.6) for all that is read.
KOS = Theme(
    name="kos",
    primary="#4fd1c5",
    secondary="#8fb8de",
    accent="#f6ad55",
    warning="#f6ad55",
    error="#fc8181",
    success="#68d391",
    foreground="#e6edf3",
    background="#0d1520",
    surface="#1a2636",
    panel="#243449",
    dark=True,
)


@dataclass(frozen=True)
class Terminal:
    """`kind`: poor (letters only), plain (sixteen colours) or rich; `console`: this very machine's own."""

    kind: Kind
    driver: type[Driver]
    console: bool


def look(environ: Mapping[str, str] = os.environ, console: bool = False) -> Terminal:
    """The terminal that the environment describes."""
    return Terminal(kind_of(environ), Quiet, console)


def gone(descriptor: int = 0) -> bool:
    """Whether nobody is at the other end any more: Textual itself would go on reading nothing, at full speed."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(mask & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _descriptor, mask in poll.poll(0))


def kind_of(environ: Mapping[str, str]) -> Kind:
    """What a terminal can show."""
    name = environ.get("TERM", "")
    rich = environ.get("COLORTERM") in {"truecolor", "24bit"} or "256" in name
    if name in _PLAIN or environ.get("NO_COLOR"):
        return "poor"
    return "rich" if rich else "plain"
