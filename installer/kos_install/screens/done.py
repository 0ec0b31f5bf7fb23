# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""It is installed: the recovery key, once; where to find the machine, and what comes next."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from .codes import qr
from .frame import Framed
from .said import said as translated
from .widgets import Line
from .words import _


class Key(Framed):
    """The recovery key; it is not shown again once it is noted."""

    must_be_seen = True

    def body(self) -> ComposeResult:
        """As text, and as a code for a telephone."""
        self.title_text = _("Recovery key")
        self.help_text = _(
            "This key opens the disk when the passphrase is lost. It is shown once and kept nowhere: write it down"
            " or photograph the code, and keep it where a thief of this machine does not find it."
        )
        self.keys = _("F1 help  Enter: it is written down")
        key = self.session.recovery_key
        with Horizontal(classes="beside"):
            with Vertical(classes="said"):
                yield Static(
                    Content(_("Write this down now. It opens the disk when the passphrase is lost, and is shown once."))
                )
                yield Static(Content("\n" + grouped(key) + "\n"), id="key")
                yield Line(Content(_("[ I have written it down ]")), id="noted")
            yield Static(Content(qr(key)), classes="code")

    def on_mount(self) -> None:
        """The only thing to do here."""
        super().on_mount()
        self.query_one("#noted").focus()

    def on_line_pressed(self, _event: Line.Pressed) -> None:
        """It is never shown again."""
        self.installer.noted()


def grouped(key: str) -> str:
    """The key in lines of two groups, to be read aloud."""
    groups = key.split("-")
    return "\n".join(
        "-".join(groups[at : at + 2]) + ("-" if at + 2 < len(groups) else "") for at in range(0, len(groups), 2)
    )


class Done(Framed):
    """What to do next."""

    BINDINGS = [Binding("f3,ctrl+o", "log", show=False)]
    must_be_seen = True

    def body(self) -> ComposeResult:
        """Where it is found, how it is known, and a way to start it."""
        self.title_text = _("Done")
        self.help_text = _(
            "Pull the medium out when the machine starts anew, or choose its disk in the firmware. It asks for the"
            " passphrase, then starts its services. The fingerprint is what ssh shows at the first connection: compare"
            " them, or photograph the code."
        )
        self.keys = _("F1 help  F3 log  F9 tools")
        done = self.session.done
        fingerprint = str(done.get("fingerprint", ""))
        with Horizontal(classes="beside"):
            with Vertical(classes="said"):
                yield Static(Content(said(done)), id="outcome", classes="spaced")
                yield Line(Content(_("[ Start the installed machine ]")), id="reboot")
                yield Line(Content(_("[ Power off ]")), id="power_off")
            yield Static(Content(qr(fingerprint)) if fingerprint else "", classes="code")

    def on_mount(self) -> None:
        """The likely thing first."""
        super().on_mount()
        self.query_one("#reboot").focus()

    def on_line_pressed(self, event: Line.Pressed) -> None:
        """Reboot, or power off."""
        self.installer.ask(str(event.line.id))

    def action_log(self) -> None:
        """What was done, in full."""
        self.installer.show_log()


def said(done: dict[str, Any]) -> str:
    """The outcome in words."""
    rows = [_("kOS is installed, and what should be encrypted is: it was opened again and looked at."), ""]
    rows.append(_("Host name: {name}").format(name=done.get("hostname", "")))
    if addresses := done.get("addresses"):
        rows.append(_("Address: {addresses}").format(addresses=", ".join(addresses)))
    if fingerprint := done.get("fingerprint"):
        rows += [_("SSH fingerprint:"), str(fingerprint)]
    rows += ["", *(translated(step) for step in done.get("next", []))]
    return "\n".join(rows)
