# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""While it installs, and where it stopped."""

from __future__ import annotations

import asyncio
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from .frame import Ask, Framed, Reading
from .phases import Clock, bar, lines, share
from .resume import named, sent, start_over, wanted
from .widgets import Line
from .words import _

_DRAWN_EVERY = 1.0  # seconds


class Progress(Framed):
    """Phases, bytes, time left; the log on a key."""

    BINDINGS = [Binding("f3,ctrl+o", "log", show=False)]
    must_be_seen = True

    def body(self) -> ComposeResult:
        """The phases; ways on where it failed."""
        self.title_text = _("Installing")
        self.help_text = _(
            "The install runs by itself: this screen may be closed, or its line cut, and it goes on. The log says"
            " what is being done in full. If the power fails, start from the medium again: it offers to resume, looks"
            " at what was done before, and does the rest."
        )
        self.keys = _("F1 help  F3 log  F9 tools")
        self._clock = Clock()
        self._shown: tuple[str, ...] = ()
        yield Static(id="lead")
        yield Static(id="phases")

    def foot(self) -> ComposeResult:
        """Why it stopped, if it did, and the ways on."""
        yield Static(id="faults")
        with Horizontal(id="ways"):
            yield Line(Content(_("[ Try again ]")), id="retry")
            yield Line(Content(_("[ Other secrets ]")), id="secrets")
            yield Line(Content(_("[ Change the answers ]")), id="abandon")
            yield Line(Content(_("[ Log ]")), id="log")
            yield Line(Content(_("[ Stop ]")), id="stop")

    def on_mount(self) -> None:
        """Draw, once a second at most."""
        super().on_mount()
        self._draw()
        self.set_interval(_DRAWN_EVERY, self._draw)

    def told(self, event: dict[str, Any]) -> None:
        """A change of state is shown at once, the rest in its time."""
        if event["event"] in {"state", "failed"}:
            self._draw()

    def _draw(self) -> None:
        session = self.session
        failed = session.state == "failed"
        done, total = share(session)
        lead = _("It stopped at step {done} of {total}.") if failed else _("Step {done} of {total}")
        said = lead.format(done=min(done + 1, total), total=total)
        headline = said if failed else f"{bar(done, total, 40)} {said}"
        sentence = session.failed.get("sentence", "") if failed else ""
        shown = (headline, *lines(session, self._clock), sentence)
        # To lay out a page anew costs a small machine as much as the install itself.
        if shown == self._shown:
            return
        self._shown = shown
        self.query_one("#lead", Static).update(Content(headline))
        self.query_one("#phases", Static).update(Content("\n".join(shown[1:-1])))
        self.say_faults([sentence] if sentence else [])
        for name in ("retry", "secrets", "abandon"):
            self.query_one(f"#{name}").display = failed
        self.query_one("#stop").display = not failed

    def on_line_pressed(self, event: Line.Pressed) -> None:
        """What was pressed."""
        if event.line.id == "log":
            self.action_log()
        elif event.line.id == "stop":
            self._stop()
        elif event.line.id == "secrets":
            self._again()
        elif event.line.id == "abandon":
            start_over(self)
        else:
            self.installer.ask(str(event.line.id))

    @work
    async def _again(self) -> None:
        """Type the secrets once more, and go on: the passphrase of an install that is resumed may have been wrong."""
        given = {}
        for name in wanted(self.session.answers()):
            typed = await self.app.push_screen_wait(Ask(named(name), "", secret=True))
            if not typed:
                return
            given[name] = await asyncio.to_thread(sent, name, typed)
        self.installer.go_on(given, "retry")

    def _stop(self) -> None:
        text = _("What was done so far stays, and can be resumed. Type stop to stop.")

        def stop(typed: str | None) -> None:
            if typed and typed.strip().casefold() in {"stop", _("stop")}:
                self.installer.ask("stop")

        self.app.push_screen(Ask(_("Stop the install?"), text), stop)

    def action_log(self) -> None:
        """What was done, in full."""
        self.app.push_screen(Reading(_("Log"), "\n".join(self.session.log) or _("nothing so far"), end=True))
