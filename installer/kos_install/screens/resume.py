# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An install was interrupted here: go on with it, or begin anew."""

from __future__ import annotations

from typing import Any

from passlib.hash import sha512_crypt
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from ansible_collections.kind.kos.plugins.plugin_utils.faults import Place
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse

from ..answers import Answers
from ..engine import secrets
from .flow import interrupted
from .frame import Ask, Framed
from .widgets import Entry, Line
from .words import _


def named(secret: str) -> str:
    """What a secret is called on a screen."""
    if secret.startswith(secrets.WIFI):
        return _("Passphrase of the Wi-Fi {name}").format(name=secret.removeprefix(secrets.WIFI))
    names = {secrets.PASSPHRASE: _("Passphrase"), secrets.PIN: _("PIN of the TPM 2")}
    return {**names, secrets.PASSWORD_HASH: _("Password of the user")}.get(secret, secret)


def sent(name: str, typed: str) -> str:
    """What the engine is told for what was typed: of a user's password only a hash leaves the screen."""
    return str(sha512_crypt.hash(typed)) if name == secrets.PASSWORD_HASH else typed


def wanted(answers: dict[str, Any]) -> list[str]:
    """The secrets that have to be typed to go on with these answers."""
    return secrets.wanted(parse(Answers, answers, lambda _path: Place("answers")))


def start_over(screen: Framed) -> None:
    """Give the install that stopped up for good, if who asks for it types so."""

    def abandon(typed: str | None) -> None:
        if meant(typed):
            screen.session.resumable = {}
            screen.installer.ask("abandon")

    text = _("What the interrupted install encrypted cannot be opened any more. Type start over to do so.")
    screen.app.push_screen(Ask(_("Start over?"), text), abandon)


def meant(typed: str | None) -> bool:
    """Whether that is what has to be typed before an install is given up."""
    return (typed or "").strip().casefold() in {"start over", _("start over")}


class Resume(Framed):
    """Resume or start over what was `found`."""

    must_be_seen = True

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__()
        self.found = found

    def body(self) -> ComposeResult:
        """How far it came, the secrets it needs again, both ways."""
        self.title_text = _("Interrupted install")
        self.help_text = _(
            "Resuming takes the answers of the first time, looks whether what was done then still stands, and does"
            " the rest. Starting over forgets that install for good: what it encrypted cannot be opened any more. It"
            " asks you everything again."
        )
        self.keys = _("F1 help  F9 tools  Tab next field")
        yield Static(Content(interrupted(self.found)), id="lead")
        self._names = wanted(self.found["answers"])
        with Vertical(id="secrets"):
            for number, name in enumerate(self._names):
                yield Static(Content(named(name)), classes="label")
                yield Entry(id=f"secret-{number}", password=True)

    def foot(self) -> ComposeResult:
        """Both ways."""
        yield Static(id="faults")
        with Horizontal(id="ways"):
            yield Line(Content(_("[ Resume ]")), id="resume")
            yield Line(Content(_("[ Start over ]")), id="abandon")

    def on_mount(self) -> None:
        """What else is amiss here."""
        super().on_mount()
        self.say_faults(self.session.notices)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """On to the next field."""
        event.stop()
        self.focus_next()

    def on_line_pressed(self, event: Line.Pressed) -> None:
        """Which of the two."""
        if event.line.id == "resume":
            self._resume()
        else:
            start_over(self)

    def _resume(self) -> None:
        given = [field.value for field in self.query(Input)]
        if not all(given):
            self.say_faults([_("type every secret first")])
            return
        typed = dict(zip(self._names, given, strict=True))
        self.installer.beside(
            _("Taking the install up again"),
            lambda: {name: sent(name, value) for name, value in typed.items()},
            lambda secrets: self.installer.go_on(secrets, "resume"),
        )

    def told(self, event: dict[str, Any]) -> None:
        """Why it cannot be resumed."""
        if event["event"] == "refused":
            self.say_faults(event["faults"])
