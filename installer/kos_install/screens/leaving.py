# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is lost by leaving the screens, and what is not."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from .frame import Dialog
from .model import Session
from .words import _


class Leave(Dialog):
    """Asked once: Enter leaves, Esc stays."""

    BINDINGS = [Binding("enter", "dismiss(True)", show=False)]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """What it means."""
        with Vertical(classes="dialog small"):
            yield Static(Content(_("Leave the installer?")), classes="title")
            yield Static(Content(self._text))
            yield Static(Content(_("Enter leaves, Esc stays")), classes="dim")


def about(session: Session) -> str:
    """What to know before leaving; empty where there is nothing to lose."""
    if session.state == "done":
        return _("The recovery key is not written down yet.") + " " + _back() if session.recovery_key else ""
    if session.rehearsed:
        text = _("The rehearsal ends, and its answers are lost. F2 saves answers to a file; secrets are never in it.")
        return text if session.touched or session.state not in ("detecting", "answering") else ""
    if session.state in ("applying", "verifying"):
        return _("The install goes on without this screen.") + " " + _back()
    if session.state == "failed":
        return _("Nothing goes on until somebody decides here; what was done stays.") + " " + _back()
    if not session.touched:
        return ""
    kept = _("Your answers are kept while this machine is on; passphrases that you typed have to be typed again.")
    return f"{kept} {_back()}"


def _back() -> str:
    return _("To come back, start kos-install as you did before.")
