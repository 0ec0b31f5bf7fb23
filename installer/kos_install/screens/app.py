# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The screens of an install: a client of the engine. It may be closed, or lost, at any time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from textual import work
from textual.binding import Binding
from textual.screen import Screen
from textual.scrollbar import ScrollBar, ScrollBarRender

from .. import keyboards
from ..engine.client import Link
from . import flow, leaving, saving, tools
from .done import Done, Key
from .form import Form, ready
from .frame import Ask, Dialog, Framed, Reading
from .in_turn import InTurn
from .model import Page, Session
from .pages import PAGES, making
from .progress import Progress
from .resume import Resume
from .review import Review
from .terminal import KOS, Blocks, Quiet, Terminal, gone
from .waiting import Waiting
from .words import _, use
from .works import ASKED

_LOOKS_AT_TERMINAL = 2.0  # seconds
_AGAIN = 1.0  # seconds between two tries to reach the engine
_WORKING = {"applying", "verifying", "failed"}
_ANSWERED = {"answering", "planned"}


class Installer(InTurn):
    """`connect` reaches the engine; `local`: the engine's machine is this one, and the person's own.

    `guest`: the person came in over SSH, and gets no file and no shell of this machine.
    """

    CSS_PATH = "look.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [
        Binding("f1,ctrl+g", "help", show=False, priority=True),
        Binding("f2,ctrl+s", "save", show=False, priority=True),
        Binding("f9,ctrl+t", "tools", show=False, priority=True),
        Binding("ctrl+q", "quit_here", show=False, priority=True),
        Binding("ctrl+c", "nothing", show=False, priority=True),
        Binding("ctrl+l", "redraw", show=False, priority=True),
    ]

    def __init__(
        self, connect: Callable[[], Awaitable[Link]], terminal: Terminal, local: bool = True, guest: bool = False
    ) -> None:
        super().__init__(driver_class=terminal.driver)
        self.session = Session()
        self.connected = False
        self._connect, self._local, self._guest, self._terminal = connect, local, guest, terminal
        self._link: Link | None = None
        self._at, self._layout = 0, ""
        self._confirming = False
        self.register_theme(KOS)
        self.theme = KOS.name if terminal.kind == "rich" else "ansi-dark"
        self.animation_level = "none"
        self.add_class(terminal.kind)
        ScrollBar.renderer = ScrollBarRender if terminal.kind == "rich" else Blocks

    def on_mount(self) -> None:
        """Reach the engine."""
        self.begin("detect", _("Looking at this machine"))
        self.push_screen(Waiting())
        self._listen()
        self.answer_keys()
        if not self.is_headless:
            self.set_interval(_LOOKS_AT_TERMINAL, self._leave_a_terminal_that_is_gone)

    def _leave_a_terminal_that_is_gone(self) -> None:
        if gone():
            self.exit()

    # The engine. -------------------------------------------------------------------------------------------------

    @work
    async def _listen(self) -> None:
        while True:
            try:
                self._link = await self._connect()
                self._reachable(True)
                # Not in the history: another screen may have been shown it, and be gone.
                await self._link.send("recovery_key")
                async for event in self._link.events():
                    self._hear(event)
            except (OSError, ValueError):
                pass
            self._reachable(False)
            await asyncio.sleep(_AGAIN)

    def _reachable(self, yes: bool) -> None:
        self.connected = yes
        if not yes:
            self.works.lost()
        for screen in self.screen_stack:
            if isinstance(screen, Framed) and screen.is_mounted:
                screen.headline()

    def _hear(self, event: dict[str, Any]) -> None:
        self.session.hear(event)
        self.works.told(event["event"])
        if event["event"] == "draft" and not self.session.touched:
            use(self.session.draft.get("language", "en"))
        if event["event"] in {"draft", "medium", "resumable"}:
            self.keyboard(self._answered())
        if event["event"] == "state":
            self._enter(event["state"])
        if event["event"] == "recovery_key" and self.session.state == "done":
            # To whoever comes late it is told after all else; nobody starts the machine before it is written down.
            self._show(Key(), unless=Key)
        if event["event"] == "medium":
            self._reachable(True)
        self.say_works()
        if event["event"] == "door":
            self.push_screen(tools.Door(self.session.door))
        for screen in self.screen_stack:
            if isinstance(screen, Framed) and screen.is_mounted:
                screen.told(event)

    def ask(self, do: str, **fields: Any) -> None:
        """Ask the engine for something."""
        self._send([(do, fields)])

    def _send(self, requests: list[tuple[str, dict[str, Any]]]) -> None:
        self.run_worker(self._sent(requests))

    async def _sent(self, requests: list[tuple[str, dict[str, Any]]]) -> None:
        for do in (do for do, _fields in requests if do in ASKED):
            self.begin(do, ASKED[do][0]())
        try:
            if self._link is None:
                raise ConnectionError
            for do, fields in requests:
                await self._link.send(do, **fields)
        except OSError:
            self.works.lost()
            self.notify(_("the engine cannot be reached; what you typed is kept"), severity="warning")

    # Where one is. -----------------------------------------------------------------------------------------------

    def _enter(self, state: str) -> None:
        if state != "detecting":
            self.works.end("detect")
        if state in _WORKING:
            self._show(Progress(), unless=Progress)
        elif state == "done":
            self._show(Key() if self.session.recovery_key else Done(), unless=(Key, Done))
        elif state == "answering" and self.session.resumable:
            base = self._base()
            if not (isinstance(base, Resume) and base.found == self.session.resumable):
                self._show(Resume(self.session.resumable))
        elif state == "answering" and not isinstance(self._base(), Form | Review):
            flow.recall(self.session)
            self._open()
        elif state == "planned" and not isinstance(self._base(), Form | Review):
            self._at = len(PAGES)
            self._show(Review())

    def _base(self) -> Screen[Any]:
        return self.screen_stack[1] if len(self.screen_stack) > 1 else self.screen_stack[0]

    def _show(self, screen: Framed, unless: type[Framed] | tuple[type[Framed], ...] = ()) -> None:
        if unless and isinstance(self._base(), unless):
            return
        while len(self.screen_stack) > 2:
            self.pop_screen()
        self.switch_screen(screen)

    def go(self, by: int) -> None:
        """To the page after, or before; what was answered is kept by the engine, too."""
        self.session.notices = []
        self._at = max(0, min(len(PAGES), self._at + by))
        if flow.settled(self.session):
            self._settled()
        else:
            self.beside(_("Making the hash of the password"), self._settle, lambda _none: self._settled())

    def _settle(self) -> None:
        flow.settle(self.session)

    def _settled(self) -> None:
        flow.settle(self.session)
        self.ask("draft", answers=self.session.draft.answers)
        self._open()

    def _open(self) -> None:
        if self._at == len(PAGES):
            self._show(Review())
            return
        make = PAGES[self._at]

        def made(page: Page) -> None:
            # Another screen may have begun the install meanwhile.
            if self.session.state in _ANSWERED:
                self._show(Form(make, page))

        self.beside(making(make), lambda: ready(make, self.session), made)

    def place(self, screen: Framed) -> str:
        """Where a screen is in the row of all of them."""
        if not isinstance(screen, Form | Review):
            return ""
        return _("{number} of {total}").format(number=self._at + 1, total=len(PAGES) + 1)

    # What a person asks for. -------------------------------------------------------------------------------------

    def ask_for_plan(self) -> None:
        """Give the engine all answers and secrets, and let it plan."""
        flow.settle(self.session)
        self.session.plan = {}
        self._send(flow.answering(self.session))

    def confirm(self, typed: list[str]) -> None:
        """Begin, if what was typed is what the disks are called."""
        self.ask("confirm", digest=self.session.plan["digest"], typed=typed)

    def go_on(self, secrets: dict[str, str], do: str) -> None:
        """Go on with an install that was interrupted, or failed, with these secrets."""
        given = [("secret", {"name": name, "value": value}) for name, value in secrets.items()]
        self._send([*given, (do, {})])

    def noted(self) -> None:
        """The recovery key is written down: forget it."""
        self.session.recovery_key = ""
        self.ask("noted")
        self._show(Done())

    def keyboard(self, layout: str) -> None:
        """Give the keys of this console their meaning at once; elsewhere the terminal does that."""
        here = self._terminal.console and os.environ.get("TERM") == "linux" and self.session.record
        if here and layout != self._layout and layout in keyboards.known():
            self._layout = layout
            try:
                keyboards.use(layout)
            except OSError as error:
                self.notify(str(error), severity="error")

    def _answered(self) -> str:
        """The keyboard of the answers; of an install that can go on, the one that its passphrase was typed with."""
        answers = self.session.resumable.get("answers") or self.session.draft.answers
        return str(answers.get("keyboard", "us"))

    def show_log(self) -> None:
        """What was done, in full."""
        self.push_screen(Reading(_("Log"), "\n".join(self.session.log) or _("nothing so far"), end=True))

    def action_help(self) -> None:
        """Help for the screen that is shown."""
        base = self._base()
        if isinstance(base, Framed) and not isinstance(self.screen, Reading):
            more = _(
                "PgUp and PgDn move a page that is longer than the screen. Where a terminal has no function keys:"
                " Ctrl+G is F1, Ctrl+S F2, Ctrl+O F3, Ctrl+T F9, Ctrl+B Esc. Ctrl+L draws the screen anew."
            )
            if not self._terminal.console:
                more += " " + _("Ctrl+Q leaves the installer.")
            self.push_screen(Reading(base.title_text, f"{base.help_text}\n\n{more}"))

    @work
    async def action_save(self) -> None:
        """Write the answers to a file; secrets are never in it."""
        if self._guest:
            self.notify(_("no file is written for who comes in over SSH: kos-install --remote saves on your machine"))
            return
        if isinstance(self.screen, Dialog):
            return
        text, offered, taken = saving.about(self.session), saving.USUAL, ""
        while path := await self.push_screen_wait(Ask(_("Save the answers to a file"), text, str(offered))):
            try:
                answers = await asyncio.to_thread(flow.chosen, self.session)
                saving.save(answers, Path(path), over=path == taken)
                self.notify(_("saved: {path}").format(path=path))
                return
            except FileExistsError:
                text, offered, taken = saving.there(Path(path)), saving.free(Path(path)), path
            except OSError as error:
                self.notify(_("not saved: {why}").format(why=error.strerror or str(error)), severity="error")
                return

    @work
    async def action_tools(self) -> None:
        """The list of what is always at hand."""
        if isinstance(self.screen, tools.Tools):
            return
        chosen = await self.push_screen_wait(tools.Tools(self._local))
        if chosen in {tools.SHELL, tools.NETWORK}:
            with self.suspend():
                if chosen == tools.SHELL:
                    tools.shell(_("kai is here: kai --help. exit leads back to the installer."))
                else:
                    tools.network(_("Press Enter to go back."))
            self.action_redraw()
        elif chosen:
            self.ask(chosen)

    def action_quit_here(self) -> None:
        """Leave the screen where it is not the machine's own; the install goes on."""
        if self._terminal.console or isinstance(self.screen, leaving.Leave):
            return
        if text := leaving.about(self.session):
            self.push_screen(leaving.Leave(text), lambda sure: self._leave() if sure else None)
        else:
            self.exit()

    def _leave(self) -> None:
        self.beside(_("Handing the answers over"), self._settle, lambda _none: self.run_worker(self._left()))

    async def _left(self) -> None:
        """What was answered on this page, too, is there for who comes back."""
        if self.session.touched and self.session.state in _ANSWERED and self._link is not None:
            with contextlib.suppress(OSError):
                await self._link.send("draft", answers=self.session.draft.answers)
        self.exit()

    def action_redraw(self) -> None:
        """Draw all of it anew, whatever the kernel has written over it."""
        if isinstance(self._driver, Quiet):
            self._driver.forget()
        self.screen.refresh(layout=True)
        self.refresh(layout=True)

    def action_nothing(self) -> None:
        """Ctrl+C is a slip."""
