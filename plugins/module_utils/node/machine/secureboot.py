# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This machine's own keys for Secure Boot: made on it, kept in its encrypted root, enrolled by systemd-boot."""

from __future__ import annotations

import glob
import os
import tempfile
import uuid

from .. import files, system
from ..files import Root
from .uki import Key

FOLDER = "/etc/kos/secure-boot"
# Platform key, key exchange key, signatures: each signs the next, the first itself.
KINDS = ("PK", "KEK", "db")
EFIVARS = "/sys/firmware/efi/efivars"
_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_OPTION_ROMS = "/sys/bus/pci/devices/*/rom"
# RSA of 2048 bits is all that the UEFI specification asks of firmware (32.5.3).
_NEW = ["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-sha256", "-days", "7300"]


def key(root: Root) -> Key | None:
    """The key that signs what boots; None where this machine has none of its own."""
    private, certificate = (root.join(f"{FOLDER}/db.{kind}") for kind in ("key", "crt"))
    return Key(private, certificate) if os.path.exists(private) and os.path.exists(certificate) else None


def make_keys(root: Root, name: str) -> Key:
    """Make the set; one that is there, whole, stays. `name` is for people. Raises CommandFailed, OSError."""
    folder = root.join(FOLDER)
    files.make_directory(folder)
    os.chmod(folder, 0o700)
    if not all(os.path.exists(f"{folder}/{kind}.auth") for kind in KINDS):
        for kind in KINDS:
            subject = ["-subj", f"/CN={name} {kind}/", "-keyout", f"{folder}/{kind}.key"]
            system.run([*_NEW, *subject, "-out", f"{folder}/{kind}.crt"])
            os.chmod(f"{folder}/{kind}.key", 0o600)
        _make_enrolment(folder)
        os.sync()
    return Key(f"{folder}/db.key", f"{folder}/db.crt")


def _make_enrolment(folder: str) -> None:
    """What firmware takes: lists of certificates, each signed by the key above it."""
    owner = str(uuid.uuid4())
    with tempfile.TemporaryDirectory() as work:
        for signer, kind in zip(("PK", *KINDS), KINDS, strict=False):
            listed = os.path.join(work, kind)
            system.run(["cert-to-efi-sig-list", "-g", owner, f"{folder}/{kind}.crt", listed])
            if kind == "db":
                with open(listed, "ab") as stream:
                    stream.write(vendors())
            signed = ["-g", owner, "-k", f"{folder}/{signer}.key", "-c", f"{folder}/{signer}.crt"]
            system.run(["sign-efi-sig-list", *signed, kind, listed, f"{folder}/{kind}.auth"])


def vendors() -> bytes:
    """The certificates that this machine was sold with, where a card of it has a program of its own for firmware.

    Without them such a card (a graphics card, say) stays dark under Secure Boot.
    """
    if not glob.glob(_OPTION_ROMS):
        return b""
    # The first four bytes of a variable's file are its attributes.
    return (files.read(f"{EFIVARS}/dbDefault-{_GLOBAL}") or b"")[4:]


def enrolment(root: Root) -> dict[str, str]:
    """The files from which systemd-boot enrols the set: variable and path; none where there is no set."""
    found = {kind: root.join(f"{FOLDER}/{kind}.auth") for kind in KINDS}
    return found if all(map(os.path.exists, found.values())) else {}


def enforced() -> bool:
    """Whether firmware starts only what is signed, and is not waiting for keys."""
    on, setup = (_variable(name) for name in ("SecureBoot", "SetupMode"))
    return on == 1 and setup == 0


def _variable(name: str) -> int | None:
    content = files.read(f"{EFIVARS}/{name}-{_GLOBAL}")
    return content[4] if content and len(content) == 5 else None
