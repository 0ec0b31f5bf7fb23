# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A page of questions on a screen."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static
from textual.worker import get_current_worker

from .frame import Framed, Search
from .model import Option, Page, Session, astray, wrong
from .pages import making
from .widgets import Asked, Changed, Choice, Line, Pick
from .words import _, language, use

_PASSED_BY = 0.15  # seconds


def ready(make: Callable[[Session], Page], session: Session) -> Page:
    """A page with all that is slow about it done once, so that nothing of it is when it is drawn."""
    page = make(session)
    _looked_through(page, session)
    return page


def _looked_through(page: Page, session: Session) -> str:
    """What a page says beside its questions, once it is known which of them are asked."""
    for question in page.questions:
        question.shown(session.draft)
    return page.aside(session)


class Form(Framed):
    """One page; what is answered is kept at every key."""

    BINDINGS = [
        Binding("escape,ctrl+b", "back", show=False),
        Binding("ctrl+n", "next", show=False),
    ]

    def __init__(self, make: Callable[[Session], Page], page: Page) -> None:
        super().__init__()
        self._make, self.page = make, page

    def body(self) -> ComposeResult:
        """The questions, what is said about the answers, and the way on."""
        self.title_text, self.help_text = self.page.title, self.page.help
        self.keys = _("F1 help  F2 save answers  F9 tools  Esc back  Tab next field  Ctrl+N continue")
        yield Static(Content(self.page.lead), id="lead")
        for question in self.page.questions:
            yield Asked(question, question.read(self.session.draft))
        yield Static(id="aside", classes="wide" if self.page.wide else "")

    def foot(self) -> ComposeResult:
        """What is wrong, and the ways on."""
        yield Static(id="faults")
        with Horizontal(id="ways"):
            yield Line(Content(_("[ Continue ]")), id="next")
            yield Line(Content(_("[ Back ]")), id="back")

    def on_mount(self) -> None:
        """Show what depends on the answers."""
        super().on_mount()
        self.say_faults([*self.session.notices, *self.session.faults])
        self._depend()
        self._say()
        self.call_after_refresh(self._fit)

    def on_resize(self) -> None:
        """There is more room, or less."""
        self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        """A list that is cut takes the room that the page leaves."""
        # It may be on its way in, or out.
        for body in self.query("#body").results(VerticalScroll):
            used = max((child.virtual_region_with_margin.bottom for child in body.children), default=0)
            for shown in self.query(Choice):
                room = body.size.height - used + shown.size.height
                shown.styles.max_height = max(Choice.LEAST, min(shown.virtual_size.height, room))

    def on_changed(self, event: Changed) -> None:
        """Keep an answer, and show what follows from it."""
        event.stop()
        session = self.session
        session.touched = True
        if event.value == event.question.read(session.draft):
            return
        event.question.write(session.draft, event.value)
        session.faults = []
        self.say_faults([])
        use(session.draft.get("language", "en"))
        # A language brings its keyboard along.
        self.installer.keyboard(str(session.draft.get("keyboard", "us")))
        if event.question.anew:
            self.call_later(self._anew, event.question.name)
            return
        if not self.page.slow:
            self._depend()
        self._say()

    async def _anew(self, name: str) -> None:
        """Say everything anew: in another language, with other answers."""
        self.page = self._make(self.session)
        await self.recompose()
        self.on_mount()
        self._to(name)

    def _to(self, name: str) -> None:
        for asked in self.query(Asked):
            if asked.question.name == name:
                asked.children[-1].focus()

    def told(self, event: dict[str, object]) -> None:
        """The machine or the medium changed."""
        if event["event"] in {"hardware", "medium"}:
            self._say()
        elif event["event"] == "refused":
            self.say_faults(self.session.faults)

    def _depend(self) -> None:
        for asked in self.query(Asked):
            asked.display = asked.question.shown(self.session.draft)

    def _say(self) -> None:
        if self.page.slow:
            self.query_one("#aside", Static).update(Content(f"{making(self._make)} ..."))
            self._say_slowly(language())
        else:
            self.query_one("#aside", Static).update(Content(self.page.aside(self.session)))

    @work(thread=True, exclusive=True)
    def _say_slowly(self, _language: str) -> None:
        # Whoever moves down a list makes nothing of what is passed by.
        time.sleep(_PASSED_BY)
        if get_current_worker().is_cancelled:
            return
        said = _looked_through(self.page, self.session)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._said, said)

    def _said(self, text: str) -> None:
        if self.is_mounted:
            self.query_one("#aside", Static).update(Content(text))
            self._depend()
            self.call_after_refresh(self._fit)

    def on_line_pressed(self, event: Line.Pressed) -> None:
        """A long list opens; or one goes on, or back."""
        if isinstance(event.line, Pick):
            if event.line.question.found:
                self._find(event.line)
            else:
                self._search(event.line, event.line.question.options)
        elif event.line.id == "next":
            self.action_next()
        elif event.line.id == "back":
            self.action_back()

    def _search(self, pick: Pick, options: Sequence[Option]) -> None:
        # Keys come faster than a list: one that opens already is not opened again.
        if self.app.screen is not self:
            return
        title = pick.question.label or self.page.title
        self.app.push_screen(Search(title, list(options), pick.value), pick.chose)

    def _find(self, pick: Pick) -> None:
        def found(options: Sequence[Option]) -> None:
            if options:
                self._search(pick, options)
            else:
                self.say_faults([_("nothing was found")])

        if pick.question.found:
            self.installer.beside(_("Looking for keys on USB sticks"), pick.question.found, found)

    def action_next(self) -> None:
        """Go on, where nothing is wrong."""
        if self.page.slow:
            judge = functools.partial(wrong, self.page, self.session.draft)
            self.installer.beside(making(self._make), judge, self._judged)
        else:
            self._judged(wrong(self.page, self.session.draft))

    def _judged(self, faults: list[str]) -> None:
        if faults:
            self.say_faults(faults)
            self._to(astray(self.page, self.session.draft))
        else:
            self.installer.go(1)

    def action_back(self) -> None:
        """To the page before; nothing is lost."""
        self.installer.go(-1)
