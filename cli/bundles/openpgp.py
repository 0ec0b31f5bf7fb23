# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenPGP key that signs the APT repository of a bundle: beside the signing key, made on first use.

apt takes OpenPGP signatures only. gpg works in a private directory that goes with the call.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...plugins.plugin_utils.unit_store import locked
from ..units.tools import ToolFailed

NAME = "archive_key"
_OWNER = "kOS bundles of this controller"
# Before every bundle, so that a bundle may be dated by SOURCE_DATE_EPOCH.
_BIRTHDAY = "20250101T000000!"


@dataclass(frozen=True)
class Signed:
    """What apt reads: the release file with its signature inside, and the public key (armoured)."""

    release: bytes
    key: bytes


def sign(release: bytes, epoch: int, folder: Path) -> Signed:
    """Sign a release file at the time `epoch` with the key in `folder`. Raises ToolFailed."""
    path = _key(folder)
    when = datetime.fromtimestamp(epoch, UTC).strftime("%Y%m%dT%H%M%S!")
    with _home() as home:
        _gpg(home, ["--import", str(path)])
        # Signing without a clock of its own, so that the same release gives the same signature.
        signed = _gpg(home, ["--faked-system-time", when, "--digest-algo", "SHA512", "--clearsign"], release)
        return Signed(signed, _gpg(home, ["--armor", "--export-options", "export-minimal", "--export"]))


def _key(folder: Path) -> Path:
    path = folder / NAME
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(folder), _home() as home:
        if not path.exists():
            made = ["--faked-system-time", _BIRTHDAY, "--passphrase", ""]
            _gpg(home, [*made, "--quick-generate-key", _OWNER, "ed25519", "sign", "never"])
            secret = _gpg(home, ["--armor", "--export-secret-keys"])
            unfinished = path.with_name(f".{NAME}.new")
            unfinished.touch(mode=0o600)
            unfinished.write_bytes(secret)
            unfinished.rename(path)
    return path


@contextmanager
def _home() -> Iterator[str]:
    """A directory for gpg and its agent, which end with it."""
    with tempfile.TemporaryDirectory(prefix="kos-gpg-") as home:
        try:
            yield home
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], capture_output=True, check=False)


def _gpg(home: str, arguments: Sequence[str], stdin: bytes = b"") -> bytes:
    argv = ["gpg", "--homedir", home, "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", *arguments]
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise ToolFailed("gpg is not installed on this controller: apt install gpg gpg-agent") from error
    if done.returncode:
        raise ToolFailed(f"gpg failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
