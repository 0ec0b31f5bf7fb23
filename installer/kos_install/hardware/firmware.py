# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the firmware and the keys beside it are: UEFI or BIOS, Secure Boot, what it starts, TPM, FIDO2."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path
from typing import Literal

from .reading import line

_EFI = "sys/firmware/efi"
# UEFI Specification: the GUID of its global variables; four bytes of attributes come before a value.
_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_ATTRIBUTES = 4
# UEFI Specification 3.1.3: attributes and the length of the path come before the name of a load option.
_OPTION = struct.Struct("<IH")
_MEDIA, _HARD_DRIVE, _END = 4, 1, 0x7F
_SIGNATURE = slice(24, 40)  # of a hard drive's node: the UUID of a partition of GPT
# FIDO Client to Authenticator Protocol: the usage page 0xF1D0 is the first thing in the report descriptor.
_FIDO = b"\x06\xd0\xf1"


def firmware(system: Path) -> Literal["uefi", "bios"]:
    """What started this machine."""
    return "uefi" if (system / _EFI).is_dir() else "bios"


def secure_boot(system: Path) -> Literal["on", "setup", "off"]:
    """Whether the firmware checks what it starts; *setup*: it takes new keys from anybody."""
    if _variable(system, "SetupMode") == b"\x01":
        return "setup"
    return "on" if _variable(system, "SecureBoot") == b"\x01" else "off"


def boots(system: Path) -> dict[str, str]:
    """GPT's UUID of a partition -> the names of what the firmware starts from it."""
    found: dict[str, list[str]] = {}
    for path in sorted((system / _EFI / "efivars").glob(f"Boot[0-9A-F][0-9A-F][0-9A-F][0-9A-F]-{_GLOBAL}")):
        name, partition = _load_option(_variable(system, path.name.partition("-")[0]))
        if partition and name and name not in found.setdefault(partition, []):
            found[partition].append(name)
    return {partition: ", ".join(listed) for partition, listed in found.items()}


def tpm2(system: Path) -> bool:
    """Whether there is a TPM of version 2."""
    return any(line(path) == "2" for path in (system / "sys/class/tpm").glob("tpm*/tpm_version_major"))


def fido2(system: Path) -> bool:
    """Whether a FIDO2 key is plugged in. Not whether it knows hmac-secret: only asking it would tell, with a touch."""
    return any(_fido(path) for path in (system / "sys/class/hidraw").glob("*/device/report_descriptor"))


def _fido(path: Path) -> bool:
    try:
        return path.read_bytes().startswith(_FIDO)
    except OSError:
        return False


def _variable(system: Path, name: str) -> bytes:
    try:
        return (system / _EFI / "efivars" / f"{name}-{_GLOBAL}").read_bytes()[_ATTRIBUTES:]
    except OSError:
        return b""


def _load_option(value: bytes) -> tuple[str, str]:
    """The name and the partition's UUID of a boot entry; empty where it has none, or is broken."""
    if len(value) < _OPTION.size:
        return "", ""
    _attributes, length = _OPTION.unpack_from(value)
    end = _OPTION.size
    while value[end : end + 2] not in (b"\0\0", b""):
        end += 2
    name = value[_OPTION.size : end].decode("utf-16-le", "replace")
    return name, _partition(value[end + 2 : end + 2 + length])


def _partition(path: bytes) -> str:
    """The UUID of the partition in a device path."""
    while len(path) >= 4:
        kind, subtype, size = struct.unpack_from("<BBH", path)
        if kind == _END or size < 4:
            return ""
        if (kind, subtype) == (_MEDIA, _HARD_DRIVE) and min(size, len(path)) >= _SIGNATURE.stop:
            return str(uuid.UUID(bytes_le=path[_SIGNATURE]))
        path = path[size:]
    return ""
