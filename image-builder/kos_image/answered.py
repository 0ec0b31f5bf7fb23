# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installer's answers as the seed of a card: what its first start makes true, and what no card can.

An image lies about, and anybody can read a card's files that systemd-networkd and cloud-init read: no secret goes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ansible_collections.kind.kos.plugins.plugin_utils.documents import KeyPath, dotted
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError, Fault
from kos_install import answers as installer
from kos_install.answers import Answers
from kos_install.unattended import of_example

_ITSELF = "a card goes where it is put: leave the key away"
_PUBLIC = "it would lie in the image for anybody to read: leave the key away"
_LATER = "what opens a card is its passphrase: leave the key away"
_FROM_A_CONTROLLER = "it is not on the image: leave the key away, and deploy from a controller"
# What somebody may have written who means an install on a disk, and why a card has none of it.
_NEVER = {
    "settings": _FROM_A_CONTROLLER,
    "accept_shortfall": _FROM_A_CONTROLLER,
    "storage.disk": _ITSELF,
    "storage.second": _ITSELF,
    "storage.data": _ITSELF,
    "encryption.argon2id": "the memory of the board on which it is first started decides: leave the key away",
    "encryption.tpm2": _LATER,
    "encryption.fido2": _LATER,
    "encryption.tang": _LATER,
    "user.password_hash": f"{_PUBLIC}; log in by key",
    "confirm.wipe": f"{_ITSELF}: `kos-image write` asks before it writes",
    "confirm.again": _ITSELF,
}
# Of these keys one value is what a card does anyway.
_ONLY: dict[str, tuple[Any, str]] = {
    "keyboard": ("us", "a card asks for its passphrase on the keys of a US keyboard: leave the key away"),
    "storage.layout": ("whole_disk", _ITSELF),
    "storage.swap": ("none", "a card has no swap: leave the key away"),
    "encryption.recovery_key": (True, "who types a passphrase gets one: leave the key away"),
    "encryption.secure_boot": ("stock", "a Raspberry Pi starts without the Secure Boot of a PC: leave the key away"),
    "after": ("reboot", "a card is not installed, it starts: leave the key away"),
}
_TYPED = (
    "no passphrase goes into an image: leave the key away; the first start asks for one, or takes it from a file that "
    "you put on the written card"
)
_WIFI = "a card has no Wi-Fi: leave the key away, and plug in a cable"


def load(path: Path, in_clear: bool = False) -> Answers:
    """The answers in a file, for a card that may stay `in_clear`.

    Raises ConfigurationError for what is wrong with them, and for what no card can do.
    """
    found, place = installer.placed(path)
    faults = [Fault(message, place(keys), dotted(keys)) for keys, message in refused(found)]
    if in_clear and "encryption" in found.model_fields_set:
        faults.append(Fault("leave it away, or --no-encryption", place(("encryption",)), "encryption"))
    faults += [Fault(message, place(())) for message in of_example(found)]
    if faults:
        raise ConfigurationError(faults)
    return found


def refused(asked: Answers) -> Iterator[tuple[KeyPath, str]]:
    """Each key that somebody wrote and a card cannot honour, and why."""
    for name, why in _NEVER.items():
        if _written(asked, name):
            yield tuple(name.split(".")), why
    for name, (same, why) in _ONLY.items():
        if _written(asked, name) not in (None, same):
            yield tuple(name.split(".")), why
    if not asked.encryption.passphrase.prompt:
        yield ("encryption", "passphrase"), _TYPED
    for number, one in enumerate(asked.network):
        if one.wifi is not None:
            yield ("network", number, "wifi"), _WIFI


def _written(asked: BaseModel, name: str) -> Any:
    """The value of a key that stands in the file; else None."""
    value: Any = asked
    for part in name.split("."):
        if not isinstance(value, BaseModel) or part not in value.model_fields_set:
            return None
        value = getattr(value, part)
    return value
