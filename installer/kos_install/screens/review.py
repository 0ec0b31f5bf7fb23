# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole plan, and the leave to carry it out: each disk that is wiped has to be typed by its name."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from ..engine.confirmation import called
from ..hardware.model import Disk
from .frame import Framed
from .said import picture, said
from .summary import summary
from .widgets import Entry, Line
from .words import _


class Review(Framed):
    """What will happen; the last screen before it does."""

    BINDINGS = [
        Binding("escape,ctrl+b", "back", show=False),
        Binding("ctrl+n", "install", show=False),
    ]
    must_be_seen = True
    _plan_is_seen = False

    def body(self) -> ComposeResult:
        """Summary, plan, a field for each disk that is wiped."""
        self.title_text = _("Review")
        self.help_text = _(
            "This is what will happen, in full. Nothing has been written to any disk so far. To go on, type the name"
            " of each disk that is wiped exactly as it stands there: so no disk is lost by a slip of a finger. Esc"
            " leads back, and no answer is lost."
        )
        self.keys = _("F1 help  F2 save answers  F9 tools  Esc back  Ctrl+N install")
        yield Static(Content(summary(self.session)), id="summary")
        yield Static(Content(_("The plan is being made ...")), id="plan")

    def foot(self) -> ComposeResult:
        """A field for each disk that is wiped, and the ways on."""
        yield Vertical(id="typed")
        yield Static(id="faults")
        with Horizontal(id="ways"):
            yield Line(Content(_("[ Install ]")), id="install")
            yield Line(Content(_("[ Back ]")), id="back")

    def on_mount(self) -> None:
        """Ask the engine for the plan of these answers."""
        super().on_mount()
        self.say_faults([])
        self.installer.ask_for_plan()

    def told(self, event: dict[str, Any]) -> None:
        """The plan, or why there is none."""
        if event["event"] == "plan":
            self.call_later(self._show)
        elif event["event"] == "refused":
            self.say_faults(event["faults"])
            if not self.session.plan:
                self.query_one("#plan", Static).update("")
            self._to(" ".join(event["faults"]))

    def _to(self, said: str) -> None:
        """The field of the disk that is spoken of."""
        for disk, field in zip(self._wiped(), self.query(Input), strict=False):
            if disk.path in said:
                field.focus()
                return

    async def _show(self) -> None:
        self._plan_is_seen = False
        # In one go: whoever sees the field and types at once must find it ready.
        with self.app.batch_update():
            await self._show_plan()
        self.call_after_refresh(self._look_at_plan)

    async def _show_plan(self) -> None:
        plan = self.session.plan
        warnings = [f"! {said(warning)}" for warning in plan["warnings"]]
        self.query_one("#plan", Static).update(Content("\n".join([picture(plan["before_after"]), *warnings])))
        typed = self.query_one("#typed", Vertical)
        await typed.remove_children()
        for number, disk in enumerate(self._wiped()):
            text = _("All on {path} will be lost. To confirm, type its name: {name}")
            await typed.mount(
                Static(Content(text.format(path=disk.path, name=called(disk, self.session.machine))), classes="wipe"),
                Entry(id=f"typed-{number}"),
            )
        first = typed.query(Input)
        (first.first() if first else self.query_one("#install")).focus()

    def _look_at_plan(self) -> None:
        self._plan_is_seen = True
        self.look()

    def _wiped(self) -> list[Disk]:
        return [Disk.model_validate(disk) for disk in self.session.plan.get("wipes", [])]

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """On to the next field."""
        event.stop()
        self.focus_next()

    def on_line_pressed(self, event: Line.Pressed) -> None:
        """Install, or go back."""
        if event.line.id == "install":
            self.action_install()
        else:
            self.action_back()

    def action_install(self) -> None:
        """Confirm; the engine sees whether what was typed is right."""
        if self.session.plan and self._plan_is_seen:
            self.say_faults([])
            self.installer.confirm([field.value for field in self.query(Input)])

    def action_back(self) -> None:
        """Back to the answers."""
        self.installer.go(-1)
