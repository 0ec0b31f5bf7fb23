# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets made on the node and kept sealed: clear text exists only in memory and in a daemon's credentials."""

from __future__ import annotations

import os
import secrets as randomness
import string
from typing import Any

from . import files, merkle, system
from .files import Root

_ALPHABET = string.ascii_letters + string.digits


class Vault:
    """The node's secrets, sealed with systemd-creds below ``/var/lib/kos/secrets``."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._clear: dict[str, str] = {}

    def ensure(self, wanted: list[dict[str, Any]], given: dict[str, str]) -> None:
        """Make every secret of `wanted` that is missing; one the operator has `given` replaces ours.

        One of length 0 is the operator's alone: empty until it is given.
        """
        for entry in wanted:
            name = f"{entry['service']}.{entry['name']}"
            if name in given:
                if not self._exists(name) or self.reveal(name) != given[name]:
                    self._store(name, given[name])
            elif not self._exists(name):
                self._store(name, "".join(randomness.choice(_ALPHABET) for _position in range(entry["length"])))

    def missing(self, wanted: list[dict[str, Any]], given: dict[str, str]) -> list[str]:
        """The secrets that `ensure` would make or replace."""
        names = [f"{entry['service']}.{entry['name']}" for entry in wanted]
        return [
            name for name in names if not self._exists(name) or (name in given and self.reveal(name) != given[name])
        ]

    def reveal(self, name: str) -> str:
        """The clear text of a secret. Raises CommandFailed when it cannot be unsealed on this machine."""
        if name not in self._clear:
            argv = ["systemd-creds", "decrypt", f"--name=kos-{name}", self._root.join(self.path(name)), "-"]
            self._clear[name] = system.run(argv).stdout.decode()
        return self._clear[name]

    def version(self, name: str) -> str:
        """What changes when the secret does, and says nothing about it."""
        return merkle.digest(files.read(self._root.join(self.path(name))) or b"")

    def _store(self, name: str, text: str) -> None:
        os.makedirs(self._root.state("secrets"), mode=0o700, exist_ok=True)
        files.write(self._root.join(self.path(name)), seal(text.encode(), f"kos-{name}"), 0o600)
        self._clear[name] = text

    def _exists(self, name: str) -> bool:
        return os.path.exists(self._root.join(self.path(name)))

    @staticmethod
    def path(name: str) -> str:
        """Where the secret lies, as the node sees it."""
        return f"{files.STATE}/secrets/{name}.cred"


def seal(content: bytes, name: str) -> bytes:
    """`content` encrypted for this machine, readable only as the credential `name`.

    The key is the host's own file; binding it to a TPM waits for the encrypted installs that have one.
    """
    return system.run(["systemd-creds", "encrypt", "--with-key=host", f"--name={name}", "-", "-"], stdin=content).stdout
