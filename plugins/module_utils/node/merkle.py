# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Content addresses: SHA3-256 of a file, and the Merkle root of a tree of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

# RFC 6962 keeps leaves and inner nodes apart by their first byte, so that one cannot pass for the other.
_LEAF = b"\x00"
_NODE = b"\x01"


def digest(content: bytes) -> str:
    """SHA3-256 of `content`, as 64 hexadecimal digits."""
    return hashlib.sha3_256(content).hexdigest()


def root(leaves: Iterable[tuple[str, str]]) -> str:
    """The Merkle root over (name, digest) pairs, whatever their order; 64 hexadecimal digits."""
    level = [
        hashlib.sha3_256(_LEAF + name.encode() + b"\x00" + bytes.fromhex(content)).digest()
        for name, content in sorted(leaves)
    ]
    if not level:
        return digest(_LEAF)
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [hashlib.sha3_256(_NODE + pair[0] + pair[1]).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0].hex()
