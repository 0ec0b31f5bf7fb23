# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's own Ed25519 identity: made here, and the private half never leaves."""

from __future__ import annotations

import os

from . import files, system
from .files import Root


def public_key(root: Root) -> str | None:
    """The node's public key in OpenSSH form, or None before it has one."""
    content = files.read(root.state("identity", "node.pub"))
    return content.decode().strip() if content else None


def ensure(root: Root) -> tuple[str, bool]:
    """The node's public key, made on first use; and whether it was made now."""
    known = public_key(root)
    if known:
        return known, False
    folder = root.state("identity")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    key = os.path.join(folder, "node")
    # A half-made pair of an interrupted run is no identity yet.
    files.remove(key)
    files.remove(f"{key}.pub")
    system.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kos-node", "-f", key])
    return public_key(root) or "", True
