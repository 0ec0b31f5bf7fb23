# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the disk is locked: a passphrase that always opens it, and what else may."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node.machine import strength

from ... import secrets
from ..draft import Draft
from ..model import Option, Page, Question, Session, ask
from ..words import _

_TANG = re.compile(r"https?://[^\s/]+(/\S*)?")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{20,100}")
# Characters that lie elsewhere on the keyboards of different countries.
_MOVED = set("yzYZ-_=+[]{};:'\"\\|<>/?@#~`!$%^&*()äöüßÄÖÜ")


def page(session: Session) -> Page:
    """Ask for the passphrase and for other ways to open the disk that this machine can have."""
    here = session.machine
    bound = [Option("stock", _("the keys that computers are sold with")), Option("own", _("keys made on this machine"))]
    questions = [
        secret("passphrase", _("Passphrase"), _passphrase),
        again("passphrase", _("Once more")),
        Question("test", _("Keyboard test"), "text", lambda draft: draft.scratch.get("test", ""), _test),
        ask("encryption.recovery_key", _("Recovery key, shown once at the end"), "switch", True),
        *(_tpm2() if here.tpm2 else []),
        *([ask("encryption.fido2", _("Security key (FIDO2)"), "switch", False)] if here.fido2 else []),
        *_tang(),
        *_remote(),
        *(
            [ask("encryption.secure_boot", _("Secure Boot"), "choice", "stock", options=bound)]
            if _uefi(session)
            else []
        ),
    ]
    return Page(
        "encryption",
        _("Encryption"),
        _(
            "All that kOS has on a disk is encrypted. The passphrase opens it at every start; without it nobody gets"
            " in, you neither."
        ),
        _(
            "Four or five words that do not belong together are strong and easy to type. At every start of the machine"
            " its keyboard has the layout chosen here: the field below the passphrase shows what your keys give. A"
            " recovery key opens the disk when the passphrase is lost: it is shown once, at the end, also as a QR"
            " code. TPM 2 opens the disk on this machine alone, from the first start on which Secure Boot is enforced;"
            " with a PIN nobody who steals the machine gets in. Tang opens it while a server of yours can be reached."
        ),
        questions,
        lambda session: judged(session.draft, session),
    )


def secret(name: str, label: str, check: Callable[[str], str]) -> Question:
    """A question for a secret, which goes to the engine and nowhere else."""

    def write(draft: Draft, value: str) -> None:
        draft.secrets[name] = value

    return Question(name, label, "secret", lambda draft: draft.secrets.get(name, ""), write, check=check)


def again(name: str, label: str, shown: Callable[[Draft], bool] = lambda _draft: True) -> Question:
    """The same secret typed once more."""
    key = f"again:{name}"

    def write(draft: Draft, value: str) -> None:
        draft.scratch[key] = (value, value == draft.secrets.get(name, ""))

    def read(draft: Draft) -> tuple[str, bool]:
        typed = draft.scratch.get(key, ("", False))[0]
        return (typed, typed == draft.secrets.get(name, ""))

    def check(value: tuple[str, bool]) -> str:
        return "" if value[1] else _("it is not the same as above")

    return Question(key, label, "secret", read, write, check=check, shown=shown)


def _test(draft: Draft, value: str) -> None:
    draft.scratch["test"] = value


def _passphrase(value: str) -> str:
    if not value:
        return _("choose one")
    if not value.isprintable():
        return _("it holds a character that cannot be typed")
    if strength.bits(value) < strength.WEAK:
        return _("too easy to guess: take four or five words that do not belong together")
    return ""


def judged(draft: Draft, session: Session) -> str:
    """How strong the passphrase is, what another keyboard would make of it, and what this machine cannot do."""
    lines = []
    if passphrase := draft.secrets.get("passphrase", ""):
        bits = strength.bits(passphrase)
        full = min(int(bits / 8), 10)
        word = _("weak") if bits < strength.WEAK else _("fair") if bits < strength.GOOD else _("strong")
        lines.append(_("Strength: [{bar}] {word}").format(bar="#" * full + "-" * (10 - full), word=word))
        if any(letter in _MOVED or not letter.isascii() for letter in passphrase):
            lines.append(_("It has characters that lie elsewhere on other keyboards: test them in the field above."))
    if not session.machine.tpm2:
        lines.append(_("This machine shows no TPM 2."))
    if not session.machine.fido2:
        lines.append(_("No FIDO2 key is plugged in."))
    return "\n".join(lines)


def _uefi(session: Session) -> bool:
    return session.machine.firmware == "uefi"


def _tpm2() -> list[Question]:
    def write(draft: Draft, value: bool) -> None:
        draft.put("encryption.tpm2", {"pin": {"prompt": True}} if value else None)

    def pin(value: str) -> str:
        return (
            "" if len(value) >= secrets.PIN_LEAST else _("at least {count} characters").format(count=secrets.PIN_LEAST)
        )

    def on(draft: Draft) -> bool:
        return draft.get("encryption.tpm2") is not None

    given = secret("tpm2_pin", _("PIN of the TPM 2"), pin)
    return [
        Question("encryption.tpm2", _("TPM 2 with a PIN"), "switch", on, write),
        Question(given.name, given.label, given.kind, given.read, given.write, check=pin, shown=on),
        again("tpm2_pin", _("PIN once more"), on),
    ]


def _tang() -> list[Question]:
    def on(draft: Draft) -> bool:
        return draft.get("encryption.tang") is not None

    def write(draft: Draft, value: bool) -> None:
        draft.put("encryption.tang", {"url": "", "thumbprint": ""} if value else None)

    def part(key: str) -> Callable[[Draft, Any], None]:
        return lambda draft, value: draft.put(f"encryption.tang.{key}", value.strip())

    def url(value: str) -> str:
        return "" if _TANG.fullmatch(value) else _("an address such as http://192.0.2.9")

    def thumbprint(value: str) -> str:
        return "" if _THUMBPRINT.fullmatch(value) else _("as `tang-show-keys` prints it on the server")

    def reads(key: str) -> Callable[[Draft], Any]:
        return lambda draft: draft.get(f"encryption.tang.{key}", "")

    return [
        Question("encryption.tang", _("A server of the network (Tang)"), "switch", on, write),
        Question("tang.url", _("Its address"), "text", reads("url"), part("url"), check=url, shown=on),
        Question(
            "tang.key", _("Its thumbprint"), "text", reads("thumbprint"), part("thumbprint"), check=thumbprint, shown=on
        ),
    ]


def _remote() -> list[Question]:
    def write(draft: Draft, value: bool) -> None:
        keys = draft.get("user.ssh_keys", [])
        draft.put("encryption.remote_unlock", {"ssh_keys": keys} if value else None)

    def on(draft: Draft) -> bool:
        return draft.get("encryption.remote_unlock") is not None

    return [Question("encryption.remote_unlock", _("Unlock over SSH, too"), "switch", on, write)]
