# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secure Boot with own keys: making a set, signing EFI programs so that the same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from .command import run
from .errors import HostError, ImageError, UsageError
from .toolbox import Toolbox

_SET = ("PK", "KEK", "db")  # each signs the next: platform key, key exchange key, signatures
# RSA of 2048 bits is all that the UEFI specification asks of firmware (32.5.3).
_NEW = ("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-sha256", "-days", "7300")


@dataclass(frozen=True)
class Key:
    """A private key and its certificate (PEM)."""

    private: Path
    certificate: Path


def make_keys(toolbox: Toolbox, folder: Path, name: str) -> Key:
    """Make a new set of keys in a new folder, with the files that enrol it; returns the key that signs media.

    Raises ImageError.
    """
    require_new(folder)
    folder.mkdir(mode=0o700, parents=True)
    out = {"out": folder}
    for kind in _SET:
        subject = ("-subj", f"/CN={name} {kind}/")
        files = ("-keyout", f"/build/out/{kind}.key", "-out", f"/build/out/{kind}.crt")
        toolbox.run([*_NEW, *subject, *files], out)
        (folder / f"{kind}.key").chmod(0o600)
    _make_enrolment(toolbox, folder)
    return Key(folder / "db.key", folder / "db.crt")


def _make_enrolment(toolbox: Toolbox, folder: Path) -> None:
    owner = str(uuid5(NAMESPACE_URL, (folder / "PK.crt").read_text()))
    for signer, kind in zip(("PK", *_SET), _SET, strict=False):
        key = ("-k", f"/build/out/{signer}.key", "-c", f"/build/out/{signer}.crt")
        listed, enrolled = f"/build/out/{kind}.esl", f"/build/out/{kind}.auth"
        toolbox.run(["cert-to-efi-sig-list", "-g", owner, f"/build/out/{kind}.crt", listed], {"out": folder})
        toolbox.run(["sign-efi-sig-list", "-g", owner, *key, kind, listed, enrolled], {"out": folder})
        (folder / f"{kind}.esl").unlink()


def require_new(folder: Path) -> None:
    """Raise UsageError where there is something in the place of a new set of keys."""
    if folder.exists():
        raise UsageError(f"{folder} exists already: a set of keys is made in a new folder, so that none is lost")


def require_pair(private: Path, certificate: Path) -> None:
    """Raise UsageError unless `certificate` is that of the key `private`, which nobody else can read."""
    _require_private(private)
    key = ["openssl", "pkey", "-pubout", "-passin", "pass:", "-in", str(private)]
    its_own = ["openssl", "x509", "-pubkey", "-noout", "-in", str(certificate)]
    if _public(key, f"{private} is no private key") != _public(its_own, f"{certificate} is no certificate"):
        raise UsageError(f"{certificate} is not the certificate of {private}: name the two that belong together")


def _public(argv: Sequence[str], otherwise: str) -> str:
    try:
        return run(argv)
    except HostError:
        raise
    except ImageError as error:
        raise UsageError(f"{otherwise} (PEM, no passphrase): `kos-image keys` makes db.key and db.crt") from error


def enrolment(key: Key) -> list[Path]:
    """The files beside a key by which firmware learns it; none where it is not one of a whole set."""
    files = [key.certificate.with_name(f"{kind}.auth") for kind in _SET]
    return files if all(file.is_file() for file in files) else []


def sign(toolbox: Toolbox, key: Key, unsigned: Path, target: Path) -> None:
    """Write an EFI program with a signature that bears the time of the toolbox. Raises ImageError.

    RSA signatures (PKCS #1 v1.5) of the same bytes are the same, so a rebuild is; nothing has to be kept for it.
    """
    _require_private(key.private)
    target.unlink(missing_ok=True)
    toolbox.run(
        [
            *("osslsigncode", "sign", "-h", "sha256", "-time", str(toolbox.epoch)),
            *("-certs", f"/build/certificate/{key.certificate.name}", "-key", f"/build/key/{key.private.name}"),
            *("-in", f"/build/in/{unsigned.name}", "-out", f"/build/out/{target.name}"),
        ],
        {
            "certificate": key.certificate.parent,
            "key": key.private.parent,
            "in": unsigned.parent,
            "out": target.parent,
        },
    )


def _require_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"the key {path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise UsageError(f"others can read the key {path}: chmod 600 {path}, and think about who has read it")
