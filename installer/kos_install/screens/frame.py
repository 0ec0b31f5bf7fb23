# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all screens have: a line above that says where one is, a line below with the keys, and help."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option as Row

from ..medium import BROKEN, RUNNING
from .model import Option, Session
from .said import said
from .widgets import Entry
from .words import _

if TYPE_CHECKING:
    from .app import Installer


class Framed(Screen[None]):
    """A screen of the installer. `told` is called after each event of the engine."""

    BINDINGS = [
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
    ]
    title_text = ""
    help_text = ""
    keys = ""
    # Whether a key counts here only if it was pressed when the page had been drawn.
    must_be_seen = False
    seen = math.inf
    _shown_below = ""

    @property
    def is_seen(self) -> bool:
        """Whether it was drawn."""
        return self.seen < math.inf

    def look(self) -> None:
        """It is drawn, or something that one has to have seen is: from now on keys count."""
        self.seen = time.monotonic()

    @property
    def installer(self) -> Installer:
        """The app."""
        return cast("Installer", self.app)

    @property
    def session(self) -> Session:
        """What is known and answered."""
        return self.installer.session

    def compose(self) -> ComposeResult:
        """The frame, and the screen's own inside."""
        yield Static(id="above")
        with VerticalScroll(id="body", can_focus=False):
            yield from self.body()
        with Vertical(id="foot"):
            yield from self.foot()
        yield Static(id="below")

    def body(self) -> ComposeResult:
        """The screen's own."""
        yield Static()

    def foot(self) -> ComposeResult:
        """What stays in sight below it: what is wrong, and the ways on."""
        yield Static(id="faults")

    def say_faults(self, faults: list[str]) -> None:
        """What is wrong, or nothing."""
        shown = self.query_one("#faults", Static)
        shown.update(Content("\n".join(f"! {said(fault)}" for fault in faults)))
        shown.display = bool(faults)

    def action_page(self, by: int) -> None:
        """What does not fit is below."""
        body = self.query_one("#body", VerticalScroll)
        (body.scroll_page_down if by > 0 else body.scroll_page_up)(animate=False)

    def on_mount(self) -> None:
        """Say where one is."""
        self.call_after_refresh(self.look)
        self.headline()
        self._shown_below = ""
        self.keyline()

    def keyline(self) -> None:
        """The line below: the keys, or what is being worked on."""
        shown = f" {self.installer.works.said() or self.keys}".ljust(self.app.size.width)
        if shown != self._shown_below:
            self._shown_below = shown
            self.query_one("#below", Static).update(Content(shown))

    def headline(self) -> None:
        """The line above: the screen's name, and whether the engine can be reached."""
        place = self.installer.place(self)
        lost = "" if self.installer.connected else _("no connection to the engine, trying again") + "  "
        mark = about_medium(self.session)
        left, right = f" kOS  {self.title_text}", f"{lost or mark}{place} "
        gap = max(1, self.app.size.width - len(left) - len(right))
        self.query_one("#above", Static).update(Content(left + " " * gap + right))

    def told(self, event: dict[str, Any]) -> None:
        """Show what an event changed."""


def about_medium(session: Session) -> str:
    """What one has to know of the medium on every screen."""
    now = session.verification
    if session.rehearsed:
        return _("REHEARSAL: nothing is installed") + "  "
    if now.get("state") == BROKEN:
        return _("THIS MEDIUM IS BROKEN") + "  "
    if session.record and now.get("state") == RUNNING and now.get("total"):
        share = 100 * now["done"] // now["total"]
        return _("verifying the medium: {share} %").format(share=share) + "  "
    return ""


class Dialog(ModalScreen[Any]):
    """Something over the screen, which Escape closes."""

    BINDINGS = [Binding("escape", "dismiss(None)", show=False)]


class Reading(Dialog):
    """A text to read: help, or the log."""

    BINDINGS = [Binding("enter,f1,f3,q", "dismiss(None)", show=False)]

    def __init__(self, title: str, text: str, end: bool = False) -> None:
        super().__init__()
        self._title, self._text, self._end = title, text, end

    def compose(self) -> ComposeResult:
        """The text, which scrolls."""
        with Vertical(classes="dialog"):
            yield Static(Content(self._title), classes="title")
            with VerticalScroll(id="reading"):
                yield Static(Content(self._text))
            yield Static(Content(_("Esc closes; the arrows scroll")), classes="dim")

    def on_mount(self) -> None:
        """A log is read from its end."""
        reading = self.query_one("#reading", VerticalScroll)
        reading.focus()
        if self._end:
            reading.scroll_end(animate=False)


class Search(Dialog):
    """One of a long list: typing narrows it down."""

    def __init__(self, title: str, options: list[Option], value: str = "") -> None:
        super().__init__()
        self._title, self._options, self._value = title, options, value

    def compose(self) -> ComposeResult:
        """A field for what is looked for, and what fits."""
        with Vertical(classes="dialog"):
            yield Static(Content(self._title), classes="title")
            yield Entry(placeholder=_("type to search"))
            yield OptionList(compact=True)
            yield Static(Content(_("Enter chooses, Esc leaves it as it was")), classes="dim")

    def on_mount(self) -> None:
        """All of it."""
        self._narrow("")

    def on_input_changed(self, event: Input.Changed) -> None:
        """What fits."""
        self._narrow(event.value)

    def on_input_submitted(self) -> None:
        """What the cursor is on."""
        shown = self.query_one(OptionList)
        if shown.highlighted is not None:
            self.dismiss(shown.get_option_at_index(shown.highlighted).id)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """That one."""
        self.dismiss(event.option.id)

    def on_key(self, event: Any) -> None:
        """The arrows move in the list while one types."""
        if event.key in {"up", "down", "pageup", "pagedown"} and isinstance(self.focused, Input):
            shown = self.query_one(OptionList)
            moves: dict[str, Callable[[], None]] = {
                "up": shown.action_cursor_up,
                "down": shown.action_cursor_down,
                "pageup": shown.action_page_up,
                "pagedown": shown.action_page_down,
            }
            moves[event.key]()
            event.stop()

    def _narrow(self, text: str) -> None:
        words = text.casefold().split()
        fitting = [one for one in self._options if all(word in one.label.casefold() for word in words)]
        shown = self.query_one(OptionList)
        shown.clear_options()
        shown.add_options([Row(Content(one.label), id=one.value) for one in fitting])
        values = [one.value for one in fitting]
        shown.highlighted = values.index(self._value) if self._value in values else 0 if values else None


class Ask(Dialog):
    """One line to type."""

    def __init__(self, title: str, text: str, value: str = "", secret: bool = False) -> None:
        super().__init__()
        self._title, self._text, self._value, self._secret = title, text, value, secret

    def compose(self) -> ComposeResult:
        """The question and a field."""
        with Vertical(classes="dialog small"):
            yield Static(Content(self._title), classes="title")
            yield Static(Content(self._text))
            yield Entry(self._value, password=self._secret)
            yield Static(Content(_("Enter goes on, Esc leaves")), classes="dim")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """That."""
        self.dismiss(event.value)
