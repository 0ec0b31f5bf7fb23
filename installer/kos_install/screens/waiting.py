# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Until the engine has looked at the machine."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from .frame import Framed
from .words import _


class Waiting(Framed):
    """It takes a few seconds."""

    def body(self) -> ComposeResult:
        """Say so."""
        self.title_text = _("Installer")
        self.help_text = _("The installer looks at this machine: its disks, its firmware, its network cards.")
        self.keys = _("F1 help  F9 tools")
        yield Static(_("Looking at this machine ..."), id="lead")
