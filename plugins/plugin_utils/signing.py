# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own Ed25519 key: made on first use, private to its user, and what signs generations.

``KOS_SIGNING_KEY`` names another key; a ``.pub`` file means that an agent or a security key holds the private half.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..module_utils.node import trust

VARIABLE = "KOS_SIGNING_KEY"


class SigningFailed(Exception):
    """The controller's key cannot be made or used; the text says why."""


@dataclass(frozen=True)
class Signer:
    """A key on disk, and its public half as one line."""

    path: Path
    public: str

    def sign(self, identity: str) -> str:
        """The armoured signature of the generation `identity`. Raises SigningFailed."""
        return self.sign_content(trust.message(identity), trust.NAMESPACE)

    def sign_content(self, content: bytes, namespace: str) -> str:
        """The armoured signature of `content`, good for `namespace` only. Raises SigningFailed."""
        argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(self.path)]
        return _run(argv, content).decode()


def signer() -> Signer:
    """This controller's signer; its key is made when there is none. Raises SigningFailed."""
    path = _path()
    if not os.environ.get(VARIABLE):
        _make(path)
    return _signer(path)


def made(path: Path, comment: str) -> Signer:
    """The signer at `path`; its key is made when there is none. Raises SigningFailed."""
    _make(path, comment)
    return _signer(path)


def _signer(path: Path) -> Signer:
    public = _public(path)
    if not path.exists() or not public.exists():
        raise SigningFailed(f"{VARIABLE} names {path}, but that key or its .pub file is not there")
    line = public.read_text(encoding="utf-8").strip()
    if not line.startswith(trust.KEY_TYPES):
        raise SigningFailed(f"{public} is not an Ed25519 key: make one with ssh-keygen -t ed25519")
    return Signer(path, line)


def public_key() -> str | None:
    """The public key of this controller's signer as one line, or None where there is none yet: nothing is made."""
    public = _public(_path())
    return public.read_text(encoding="utf-8").strip() if public.exists() else None


def _public(path: Path) -> Path:
    return path if path.suffix == ".pub" else path.with_name(path.name + ".pub")


def _path() -> Path:
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "kos" / "signing_key"


def _make(path: Path, comment: str = "") -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Ansible's forks come here at once, and there must be one key.
    with (path.parent / ".signing_key.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        unfinished = path.with_name("signing_key.new")
        for leftover in (unfinished, unfinished.with_suffix(".new.pub")):
            leftover.unlink(missing_ok=True)
        comment = comment or f"{getpass.getuser()}@{platform.node()}"
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(unfinished)], b"")
        # The private half last: where it is, its public half is too.
        unfinished.with_suffix(".new.pub").rename(path.with_name("signing_key.pub"))
        unfinished.rename(path)


def _run(argv: list[str], stdin: bytes) -> bytes:
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise SigningFailed("ssh-keygen is not installed on this controller: apt install openssh-client") from error
    if done.returncode != 0:
        raise SigningFailed(f"ssh-keygen cannot sign: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
