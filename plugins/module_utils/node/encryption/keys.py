# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What opens the volume beside its passphrase, and another passphrase in its place.

Each change ends with a new copy of the header: an older one would open with a key that was taken away.
"""

from __future__ import annotations

import json
import os
import re

from .. import system
from ..files import NodeError, Root
from ..join import memory_mb
from ..machine import cryptsetup, enrol, luks, strength
from .opening import WrongKey
from .record import HEADER, Record, alone, require

KINDS = {"tpm2": luks.TPM2, "fido2": luks.FIDO2, "tang": luks.TANG, "recovery": luks.RECOVERY}
_PIN = re.compile(r"[\x20-\x7e]{6,64}")
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{20,100}")


class NoKey(NodeError):
    """This kind of key cannot be had, or is not there."""


def listing(root: Root) -> list[str]:
    """The kinds of keys that open the volume. Raises NotEncrypted, CommandFailed."""
    header = cryptsetup.dump(require(root).device) or {"keyslots": {}}
    others = [name for name, kind in KINDS.items() if luks.marked(header, kind)]
    return [*(["passphrase"] if luks.costs(header) else []), *others]


def add(root: Root, kind: str, passphrase: str, pin: str = "", url: str = "", thumbprint: str = "") -> str:
    """Let another kind of key open the volume, in place of one of that kind; a recovery key is given back, once.

    Raises NotEncrypted, WrongKey, NoKey, CommandFailed.
    """
    with alone(root):
        record = _opened_by(root, passphrase)
        made = luks.new_recovery_key() if kind == "recovery" else ""
        before = luks.tokens(cryptsetup.dump(record.device) or {}, KINDS[kind])
        if kind == "recovery":
            cryptsetup.add_machine_key(record.device, passphrase, made, luks.RECOVERY)
        elif kind == "tang":
            _tang(record, passphrase, url, thumbprint)
        else:
            _by_systemd(record, kind, passphrase, pin)
        after = luks.tokens(cryptsetup.dump(record.device) or {}, KINDS[kind])
        if set(after) <= set(before):
            raise NoKey(
                f"no key of the kind {kind} is in the header after one was added: the passphrase still opens it"
            )
        # The one before goes when its successor is there.
        for number, slots in before.items():
            cryptsetup.remove_token(record.device, number, slots)
        cryptsetup.keep_header(record.device, root.join(HEADER))
        return made


def remove(root: Root, kind: str) -> None:
    """Let keys of this kind open nothing any more; passphrases are exchanged, never removed. Raises NoKey."""
    with alone(root):
        record = require(root)
        header = cryptsetup.dump(record.device) or {"keyslots": {}}
        if not luks.costs(header):
            raise NoKey("no passphrase opens the volume: give it one first, or nothing may open it any more")
        found = luks.tokens(header, KINDS[kind])
        if not found:
            raise NoKey(f"no key of the kind {kind} opens the volume: nothing was removed")
        for number, slots in found.items():
            cryptsetup.remove_token(record.device, number, slots)
        cryptsetup.keep_header(record.device, root.join(HEADER))


def rotate(root: Root, old: str, new: str) -> bool:
    """Exchange the passphrase; whether anything had to be done. A run that was stopped is ended by the same again.

    Raises NotEncrypted, WrongKey, NoKey, CommandFailed.
    """
    with alone(root):
        record = require(root)
        if old == new:
            raise NoKey("the new passphrase is the old one: take another")
        if wrong := strength.fault(new):
            raise NoKey(f"the new passphrase cannot be used: {wrong}")
        before = _passphrases(record)
        taken = [slot for slot in before if cryptsetup.opens(record.device, new, slot)]
        going = [slot for slot in before if cryptsetup.opens(record.device, old, slot)]
        if not taken:
            if not going:
                raise WrongKey("the old passphrase does not open the encrypted volume: nothing was changed")
            cost = luks.affordable(memory_mb(), os.cpu_count() or 1)
            cryptsetup.add_passphrase(record.device, old, new, cost)
            if not cryptsetup.opens(record.device, new):
                raise NoKey("the new passphrase opens nothing after it was added: the old one still does")
        for slot in going:
            cryptsetup.kill(record.device, slot)
        cryptsetup.keep_header(record.device, root.join(HEADER))
        return not taken or bool(going)


def _passphrases(record: Record) -> list[str]:
    slots = (cryptsetup.dump(record.device) or {"keyslots": {}})["keyslots"]
    return [number for number, slot in slots.items() if slot["kdf"]["type"] != "pbkdf2"]


def _opened_by(root: Root, passphrase: str) -> Record:
    record = require(root)
    if not cryptsetup.opens(record.device, passphrase):
        raise WrongKey("this passphrase does not open the encrypted volume: nothing was changed")
    return record


def _by_systemd(record: Record, kind: str, passphrase: str, pin: str) -> None:
    if kind == "tpm2" and (why := enrol.obstacle()):
        raise NoKey(why)
    if pin and not _PIN.fullmatch(pin):
        raise NoKey("a PIN has 6 to 64 letters, digits or signs that every keyboard has")
    with enrol.credentials({"key": passphrase.encode()}) as told:
        key_file = os.path.join(told["CREDENTIALS_DIRECTORY"], "key")
        if kind == "tpm2":
            enrol.enrol_tpm2(record.device, key_file, pin.encode() if pin else None)
            return
        how = [f"--unlock-key-file={key_file}", "--fido2-device=auto", "--fido2-with-client-pin=no"]
        system.run(["systemd-cryptenroll", *how, record.device], timeout=120)


def _tang(record: Record, passphrase: str, url: str, thumbprint: str) -> None:
    if not _URL.fullmatch(url) or not _THUMBPRINT.fullmatch(thumbprint):
        raise NoKey(
            "a Tang server has a URL (http://…) and the thumbprint of its key: tang-show-keys on it prints that"
        )
    # With the thumbprint nobody is asked whether it is the right server: another is refused.
    settings = json.dumps({"url": url, "thp": thumbprint})
    bind = ["clevis", "luks", "bind", "-y", "-k", "-", "-d", record.device, "tang", settings]
    system.run(bind, passphrase.encode(), timeout=120)


def header(root: Root) -> bytes:
    """A copy of the header as it is now, to be kept elsewhere. Raises NotEncrypted, CommandFailed, OSError."""
    with alone(root):
        cryptsetup.keep_header(require(root).device, root.join(HEADER))
        with open(root.join(HEADER), "rb") as stream:
            return stream.read()
