# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may log in: a name, a password or SSH keys."""

from __future__ import annotations

import re
from pathlib import Path

from passlib.hash import sha512_crypt

from .. import keys
from ..draft import Draft
from ..model import Option, Page, Question, Session, ask
from ..words import _
from .encryption import again

_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_PASSWORD_LEAST = 8
# Debian's own are below 1000 and have these names; whoever took one would take its files, too.
_TAKEN = frozenset({"root", "daemon", "bin", "sys", "nobody", "systemd-network", "sshd", "www-data", "messagebus"})
LOGIN = "login"
_HASHED = "login:hashed"


def page(_session: Session) -> Page:
    """Ask for the user, the password, the keys."""
    return Page(
        "person",
        _("User"),
        _("Who may log in on this machine? Give a password, an SSH key, or both. Over SSH only keys are let in."),
        _(
            "Paste public keys, one on each line: those that ssh-keygen leaves in a file that ends in .pub, beginning"
            " with ssh-ed25519 or ssh-rsa. Instead of a key a line may name a file on this system. A key can also be"
            " read from a USB stick. The password is for the screen of this machine and for sudo."
        ),
        [
            ask("user.name", _("User name"), "text", "kos", check=_name),
            ask("user.full_name", _("Full name"), "text", ""),
            Question(
                "login", _("Password"), "secret", lambda draft: draft.secrets.get(LOGIN, ""), _password, check=_long
            ),
            again(LOGIN, _("Once more")),
            Question("user.ssh_keys", _("SSH keys"), "lines", _read_keys, _write_keys, check=keys.fault),
            _stick(),
        ],
        faults=lambda draft: _nobody(draft) or _unlockable(draft),
        field=LOGIN,
    )


def _name(text: str) -> str:
    if text in _TAKEN:
        return _("this name belongs to the system")
    return "" if _NAME.fullmatch(text) else _("small letters, digits, - and _, such as anna")


def _long(text: str) -> str:
    return (
        ""
        if not text or len(text) >= _PASSWORD_LEAST
        else _("at least {count} characters").format(count=_PASSWORD_LEAST)
    )


def _password(draft: Draft, value: str) -> None:
    draft.secrets[LOGIN] = value


def settle(draft: Draft) -> None:
    """Write the hash of the password down; the password itself goes nowhere."""
    if password := draft.secrets.get(LOGIN):
        if not hashed(draft):
            draft.put("user.password_hash", sha512_crypt.hash(password))
            draft.scratch[_HASHED] = (password, draft.get("user.password_hash"))
    elif LOGIN in draft.secrets:
        draft.put("user.password_hash", None)


def hashed(draft: Draft) -> bool:
    """Whether the hash in the answers is that of the password, if one was typed."""
    password = draft.secrets.get(LOGIN)
    return not password or draft.scratch.get(_HASHED) == (password, draft.get("user.password_hash"))


def _read_keys(draft: Draft) -> str:
    return str(draft.scratch.get("keys", "\n".join(draft.get("user.ssh_keys", []))))


def _write_keys(draft: Draft, text: str) -> None:
    draft.scratch["keys"] = text
    given = keys.read(text, Path("/"))
    draft.put("user.ssh_keys", given or None)
    if draft.get("encryption.remote_unlock"):
        draft.put("encryption.remote_unlock.ssh_keys", given)


def _stick() -> Question:
    """Keys that lie on a USB stick, or at home where the screens are not those of the machine."""

    def write(draft: Draft, key: str) -> None:
        if key:
            _write_keys(draft, "\n".join(filter(None, [_read_keys(draft).rstrip("\n"), key])))

    def look() -> list[Option]:
        return [Option(key, keys.named(key)) for key in dict.fromkeys([*keys.on_sticks(), *keys.below(Path.home())])]

    nothing = [Option("", _("look for keys on USB sticks ..."))]
    return Question("found_keys", "", "pick", lambda _draft: "", write, nothing, found=look, anew=True)


def _nobody(draft: Draft) -> str:
    if draft.secrets.get(LOGIN) or draft.get("user.password_hash") or draft.get("user.ssh_keys"):
        return ""
    return _("Nobody could log in: give a password or an SSH key.")


def _unlockable(draft: Draft) -> str:
    if draft.get("encryption.remote_unlock") and not draft.get("user.ssh_keys"):
        return _("To unlock over SSH, as you chose, an SSH key is needed.")
    return ""
