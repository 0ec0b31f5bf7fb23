# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first page: the language, the keyboard, what this machine is, and whether the medium is whole."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils.hardware import memory

from ...engine.replay import REHEARSED
from ...medium import BROKEN, GOOD, RUNNING
from ...storage.sizes import human
from ..draft import Draft, reader
from ..model import Option, Page, Question, Session
from ..said import said
from ..text import table
from ..words import LANGUAGES, _
from .disk import serial
from .system import keyboard

# What goes with a language until it is answered.
_USUAL = {"de": {"keyboard": "de", "locale": "de_DE.UTF-8", "timezone": "Europe/Berlin"}}
_SHOWN = 2  # of what is wrong with a medium


def page(_session: Session) -> Page:
    """Ask for the language and the keyboard; the rest is there to be read."""
    languages = [Option(code, name) for code, name in LANGUAGES.items()]
    return Page(
        "welcome",
        _("Welcome"),
        _(
            "This installs kOS on this machine. Nothing is written to a disk before you have seen the whole plan and"
            " confirmed it."
        ),
        _(
            "Choose the language of these screens and your keyboard. Below them is what this machine is, and whether"
            " every byte of the medium is as its maker signed it. Install only from a medium that is not BROKEN: while"
            " it is still being read you can go on."
        ),
        [
            Question("language", _("Language"), "choice", reader("language", "en"), _speak, languages, anew=True),
            keyboard(),
        ],
        machine,
    )


def _speak(draft: Draft, language: str) -> None:
    """The language, and what most who speak it have, as long as nobody has said otherwise."""
    before, after = _USUAL.get(draft.get("language", "en"), {}), _USUAL.get(language, {})
    for key in {*before, *after}:
        if draft.get(key) == before.get(key):
            draft.put(key, after.get(key))
    draft.put("language", None if language == "en" else language)


def machine(session: Session) -> str:
    """The machine and the medium in a few lines."""
    rows = [
        (_("Medium"), medium(session.record, session.verification)),
        (_("Machine"), _computer(session)),
        (_("Firmware"), _firmware(session)),
        (_("Disks"), "\n".join(disks(session)) or _("none")),
        (_("Network"), _network(session)),
    ]
    return table(rows)


def medium(record: dict[str, Any], now: dict[str, Any]) -> str:
    """What the medium is, and how far it is proved; where there is none, that alone."""
    state = now.get("state", RUNNING)
    if state == REHEARSED:
        return _("not looked at: this is a rehearsal, and no disk is written to")
    if record:
        return f"{_made(record)}\n{verification(now)}"
    # Nothing is being read then, whatever the verifier has not come to say.
    return verification(now) if state in (GOOD, BROKEN) else _("none: this system was not started from one of kOS")


def _made(record: dict[str, Any]) -> str:
    made = datetime.fromtimestamp(record.get("made", 0), UTC).strftime("%Y-%m-%d")
    text = _("kOS {version}, {profile}, for {architecture}, packages of {made}")
    shown = text.format(
        version=record.get("version", ""), profile=record["profile"], architecture=record["architecture"], made=made
    )
    if record.get("test"):
        return "\n".join([_("FOR TESTS ONLY: a disk may be locked so cheaply that anybody opens it."), shown])
    return shown


def verification(now: dict[str, Any]) -> str:
    """How far the medium is proved, in a line or, where it is broken, a few."""
    state, total = now.get("state", RUNNING), now.get("total", 0)
    if state == GOOD:
        text = _("Verified: all {size} of this medium are as {signer} signed them.")
        return text.format(size=human(total), signer=now.get("signer", ""))
    if state == BROKEN:
        found = "; ".join(now.get("said", [])[:_SHOWN])
        return _("BROKEN: this medium is not as it was made. Do not install from it. {said}").format(said=found)
    if state == RUNNING:
        share = f"{100 * now.get('done', 0) // total} %" if total else "..."
        return _("Verifying this medium: {share}").format(share=share)
    return _("Not verified: {said}").format(said=said(" ".join(now.get("said", []))))


def disks(session: Session) -> list[str]:
    """Each disk in a few words."""
    rows = []
    for disk in session.machine.disks:
        mark = " " + _("(this medium)") if disk.medium else ""
        named = [disk.path.removeprefix("/dev/"), human(disk.size), disk.model, serial(disk, session.machine)]
        rows.append(" ".join(filter(None, named)) + mark)
    return rows


def _computer(session: Session) -> str:
    here = session.machine
    text = _("{cores} cores, {memory} of memory").format(cores=here.cpu, memory=memory(here.memory_mb))
    graphics = ", ".join(here.gpu)
    return f"{text}, GPU: {graphics}" if graphics else text


def _firmware(session: Session) -> str:
    here = session.machine
    if here.firmware == "bios":
        text = _("BIOS (no Secure Boot)")
    else:
        states = {
            "on": _("UEFI, Secure Boot on"),
            "off": _("UEFI, Secure Boot off"),
            "setup": _("UEFI, Secure Boot in setup mode"),
        }
        text = states[here.secure_boot]
    return f"{text}, TPM 2" if here.tpm2 else f"{text}, " + _("no TPM 2")


def _network(session: Session) -> str:
    if session.addresses:
        return ", ".join(session.addresses)
    cards = ", ".join(card.name for card in session.machine.nics)
    return (
        _("no address yet ({cards}); none is needed").format(cards=cards)
        if cards
        else _("no network card; none is needed")
    )
