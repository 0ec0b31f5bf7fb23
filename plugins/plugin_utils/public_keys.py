# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public keys of OpenSSH, read to the last byte: sshd says nothing of one that it cannot read, and lets nobody in."""

from __future__ import annotations

import base64
import binascii
import hashlib

_WHERE = "one line of the file that ends in .pub, which ssh-keygen makes"
# RFC 5656, RFC 8709 and OpenSSH's PROTOCOL.u2f: what follows the name of the type, as the bytes of each field; 0 is any
# number but none. Types that sshd takes no more (DSA), and certificates, are none of them.
_FIELDS = {
    "ssh-ed25519": (32,),
    "sk-ssh-ed25519@openssh.com": (32, 0),
    "ssh-rsa": (0, 0),
    "ecdsa-sha2-nistp256": (8, 65),
    "ecdsa-sha2-nistp384": (8, 97),
    "ecdsa-sha2-nistp521": (8, 133),
    "sk-ecdsa-sha2-nistp256@openssh.com": (8, 65, 0),
}
_EXAMPLE = b"\0\0\0\x0bssh-ed25519\0\0\0\x20an example: put your own in here"
_RSA_LEAST = 1024  # bits: RequiredRSASize of sshd_config(5)


def checked(text: str) -> str:
    """The key, as one line. Raises ValueError, which says what to put there and does not show what was."""
    text = text.strip()
    kind, _space, rest = text.partition(" ")
    if not text.isprintable() or not rest or "PRIVATE" in text or kind not in _FIELDS:
        raise ValueError(f"not the public key of OpenSSH: {_WHERE}")
    written = rest.split()[0]
    if _whole(kind, written):
        return text
    if "\N{HORIZONTAL ELLIPSIS}" in written or "..." in written:
        raise ValueError(f"not the public key of OpenSSH but an example of one: put your own there, {_WHERE}")
    raise ValueError(f"not the public key of OpenSSH: it is cut off or changed; copy it again, {_WHERE}")


def of_example(key: str) -> bool:
    """Whether it is the one of answers.example.yaml: well-formed, and nobody has its other half."""
    return base64.b64decode(key.split()[1]) == _EXAMPLE


def fingerprint(key: str) -> str:
    """As ssh-keygen -l shows it, with the comment."""
    _kind, written, *comment = key.split(maxsplit=2)
    return " ".join([digest_of(base64.b64decode(written)), *comment])


def digest_of(blob: bytes) -> str:
    """Of a key's bytes, as every OpenSSH tool prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _whole(kind: str, written: str) -> bool:
    try:
        blob = base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError):
        return False
    fields = _fields(blob)
    if not fields or fields[0] != kind.encode() or len(fields) != len(_FIELDS[kind]) + 1:
        return False
    if not all(len(field) == size if size else field for field, size in zip(fields[1:], _FIELDS[kind], strict=True)):
        return False
    if "ecdsa" in kind:
        # SEC 1: an uncompressed point, on the curve that the type names.
        return kind.partition("@")[0].endswith(fields[1].decode("ascii", "replace")) and fields[2][0] == 4
    return kind != "ssh-rsa" or int.from_bytes(fields[2]).bit_length() >= _RSA_LEAST


def _fields(blob: bytes) -> list[bytes]:
    """The strings of RFC 4251, section 5, that it consists of; none where it ends too early."""
    found, at = [], 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4])
        field = blob[at + 4 : at + 4 + size]
        if at + 4 > len(blob) or len(field) != size:
            return []
        found.append(field)
        at += 4 + size
    return found
