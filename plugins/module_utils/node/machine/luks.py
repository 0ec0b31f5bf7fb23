# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LUKS2: what a guess at a passphrase shall cost, what a header says, and what a recovery key looks like.

Nothing here runs a program: the installer and the node each have their own way to do that.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

FLOOR_KIB = 65536
# The initrd and the services lie in memory beside it, so a quarter; more than 1 GiB gains little and takes seconds.
_SHARE, _MOST_KIB = 4, 1 << 20
_ITERATIONS = 4  # the least that cryptsetup takes: memory costs an attacker more than rounds do
_THREADS = 4  # what cryptsetup knows at most
# A key that a machine made is not to be guessed: 1000 rounds, as systemd-cryptenroll has them.
CHEAP = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
CIPHER, KEY_BYTES = "aes-xts-plain64", 64
# The header and its key slots: what is left is for data.
HEADER = 16 << 20
# Types of tokens: what systemd-cryptenroll and clevis note beside a slot that is no passphrase's.
RECOVERY, FIDO2, TPM2, TANG = "systemd-recovery", "systemd-fido2", "systemd-tpm2", "clevis"
# systemd's format of recovery keys (modhex64): the same places on every keyboard layout, in eight groups of eight.
_MODHEX = "cbdefghijklnrtuv"
_GROUPS, _GROUP = 8, 8


@dataclass(frozen=True)
class Cost:
    """What one guess at a passphrase costs, with argon2id."""

    memory_kib: int
    iterations: int = _ITERATIONS
    threads: int = 1

    def arguments(self) -> list[str]:
        """All of it forced on cryptsetup: its own benchmark falls to 64 MiB on a machine that is busy."""
        return [
            *("--pbkdf", "argon2id", "--pbkdf-memory", str(self.memory_kib)),
            *("--pbkdf-force-iterations", str(self.iterations), "--pbkdf-parallel", str(self.threads)),
        ]

    def as_said(self) -> tuple[Any, ...]:
        """In the words of `costs`."""
        return ("argon2id", *astuple(self))


def affordable(memory_mb: int, processors: int) -> Cost:
    """What a machine with this much memory can afford at every start."""
    memory = max(FLOOR_KIB, min(_MOST_KIB, memory_mb * 1024 // _SHARE))
    return Cost(memory, threads=max(1, min(_THREADS, processors)))


def costs(header: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What guesses cost at the slots that a person's passphrase opens: function, KiB, iterations, threads."""
    found = [slot["kdf"] for slot in header["keyslots"].values() if slot["kdf"]["type"] != "pbkdf2"]
    return [(kdf["type"], kdf.get("memory"), kdf.get("time"), kdf.get("cpus")) for kdf in found]


def whole(header: Mapping[str, Any]) -> bool:
    """Whether all of the device is encrypted, as it shall be."""
    ciphers = [segment.get("encryption") for segment in header["segments"].values()]
    return ciphers == [CIPHER] and {slot["key_size"] for slot in header["keyslots"].values()} == {KEY_BYTES}


def tokens(header: Mapping[str, Any], *kinds: str) -> dict[str, list[str]]:
    """The slots of the tokens of these types, by token."""
    found = header.get("tokens", {}).items()
    return {number: token["keyslots"] for number, token in found if token["type"] in kinds}


def marked(header: Mapping[str, Any], *kinds: str) -> set[str]:
    """The key slots that a header has tokens of these types for."""
    return {slot for slots in tokens(header, *kinds).values() for slot in slots}


def new_recovery_key() -> str:
    """256 random bits as a person can type them."""
    digits = "".join(secrets.choice(_MODHEX) for _row in range(_GROUPS * _GROUP))
    return "-".join(digits[at : at + _GROUP] for at in range(0, len(digits), _GROUP))
