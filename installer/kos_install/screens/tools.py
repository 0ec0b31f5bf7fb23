# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is always at hand: a shell, the verification, the network, somebody else's help, off."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option as Row

from .codes import qr
from .frame import Dialog
from .words import _

SHELL, VERIFY, NETWORK, DOOR, REBOOT, POWER_OFF = "shell", "verify_medium", "network", "door", "reboot", "power_off"


def entries(local: bool) -> dict[str, str]:
    """What can be done, by its name; a screen that is elsewhere has no shell of this machine."""
    here = {
        SHELL: _("Shell with kai (exit leads back)"),
        NETWORK: _("Look at the network"),
    }
    always = {
        VERIFY: _("Verify the medium again"),
        DOOR: _("Let somebody install over the network (SSH)"),
        REBOOT: _("Reboot"),
        POWER_OFF: _("Power off"),
    }
    return {**here, **always} if local else always


class Tools(Dialog):
    """The list; a digit chooses, too."""

    def __init__(self, local: bool) -> None:
        super().__init__()
        self._entries = entries(local)

    def compose(self) -> ComposeResult:
        """One line each."""
        rows = [
            Row(Content(f"{number} {said}"), id=name) for number, (name, said) in enumerate(self._entries.items(), 1)
        ]
        with Vertical(classes="dialog small"):
            yield Static(Content(_("Tools")), classes="title")
            yield OptionList(*rows, compact=True)
            yield Static(Content(_("Enter or a digit chooses, Esc leads back")), classes="dim")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """That one."""
        self.dismiss(event.option.id)

    def key_digit(self, number: int) -> None:
        """The one with this number, if there is one."""
        names = list(self._entries)
        if 1 <= number <= len(names):
            self.dismiss(names[number - 1])

    def on_key(self, event: object) -> None:
        """A digit."""
        character = getattr(event, "character", None) or ""
        if character.isdecimal():
            self.key_digit(int(character))


class Door(Dialog):
    """How somebody else comes in."""

    def __init__(self, door: dict[str, Any]) -> None:
        super().__init__()
        self._door = door

    def compose(self) -> ComposeResult:
        """A command, a password for this once, and the fingerprint that has to be the same over there."""
        door = self._door
        with Vertical(classes="dialog full"):
            yield Static(Content(_("Install over the network")), classes="title")
            with Horizontal(classes="beside"):
                yield Static(Content("\n\n".join(invitation(door))), classes="said")
                yield Static(Content(qr(str(door["fingerprint"]))), classes="code")


def invitation(door: dict[str, Any]) -> list[str]:
    """What whoever comes in has to type, and to compare."""
    host = ([*door["addresses"], "ADDRESS"])[0].split()[0]
    return [
        _("On the other machine:\n{command}").format(command=f"kos-install --remote root@{host}"),
        _("Without kOS there:\n{command}").format(command=f"ssh root@{host}"),
        _("Password, for this start only:\n{password}").format(password=door["password"]),
        _("It must show this fingerprint:\n{fingerprint}").format(fingerprint=door["fingerprint"]),
    ]


def shell(text: str) -> None:
    """A shell on this terminal; it ends with exit. Its errors are for who sits here, not for the journal."""
    os.system("clear")  # noqa: S605
    print(text, flush=True)
    subprocess.run(["/bin/bash", "--login"], stderr=1, check=False)


def network(text: str) -> None:
    """The links and addresses of this machine."""
    os.system("clear")  # noqa: S605
    for argv in (["networkctl", "--no-pager", "list"], ["ip", "-brief", "address"]):
        subprocess.run(argv, stderr=1, check=False)
    input(text)
