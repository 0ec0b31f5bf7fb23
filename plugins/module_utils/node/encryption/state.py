# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the encrypted volume of a node is, for status and for the doctor. Never a reason for either to fail."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ..files import NodeError, Root
from . import keys, proof
from .record import in_clear, in_use, load, locked, moved

UNLOCK = "kai encryption unlock"


def state(root: Root) -> dict[str, Any] | None:
    """What is known of the volume; None where none was ever begun."""
    record = load(root)
    if record is None:
        return None
    kinds: list[str] = []
    if os.geteuid() == 0:
        with contextlib.suppress(NodeError, OSError):
            kinds = keys.listing(root)
    here = moved(root)
    return {
        "state": "locked" if locked(root) else "open" if in_use(root) else "begun",
        "target": record.target,
        "file": record.file,
        "keys": kinds,
        "directories": here,
        "in_clear": in_clear(root),
        "plain_copies": [path for path in record.plain if path in here],
        "proven": record.opened != record.moved,
        "skipped": record.skipped,
        "plain_swap": _swap(root),
    }


def _swap(root: Root) -> list[str]:
    try:
        return proof.plain_swap(root)
    except (NodeError, OSError):
        return []


def concerns(row: dict[str, Any] | None) -> list[str]:
    """What somebody must do about it, a sentence each."""
    return [f"{text}: {command}" for text, command in findings(row)]


def findings(row: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The same, each with its command."""
    if row is None:
        return []
    if row["state"] == "locked":
        return [("The data of this node are locked", UNLOCK)]
    found = []
    if row["state"] == "begun":
        found.append(("Encrypting the data of this node has begun and not ended; the plain ones are in use",
                      "kai encryption apply"))  # fmt: skip
    elif row["in_clear"]:
        found.append((f"Data lie in clear beside the encrypted volume ({', '.join(row['in_clear'])})",
                      "kai encryption apply"))  # fmt: skip
    if row["plain_copies"]:
        found.append((f"Plain copies of encrypted data still lie on this disk ({', '.join(row['plain_copies'])})",
                      "kai encryption discard"))  # fmt: skip
    if row["plain_swap"]:
        swap = row["plain_swap"]
        found.append((f"Swap is in clear ({', '.join(swap)}), so memory of services may be written there in clear",
                      f"swapoff {' '.join(swap)}, and take it out of /etc/fstab"))  # fmt: skip
    return found
