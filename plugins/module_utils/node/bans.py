# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom the node has banned, as its kernel has it."""

from __future__ import annotations

import json
from collections import Counter

from . import system

TABLE = "kos_fail2ban"
_LISTING = ["nft", "-j", "list", "table", "inet", TABLE]


def counted() -> dict[str, int] | None:
    """How many addresses are banned from each door; None where nothing bans any."""
    try:
        done = system.run(_LISTING, check=False)
    except system.CommandFailed:
        return None
    return _doors(done.stdout) if done.returncode == 0 else None


def _doors(listing: bytes) -> dict[str, int]:
    """A door has a set for each family: `sshd4` and `sshd6`."""
    found: Counter[str] = Counter()
    for row in json.loads(listing)["nftables"]:
        if "set" in row:
            found[row["set"]["name"][:-1]] += len(row["set"].get("elem", []))
    return dict(found)


def figures() -> list[str]:
    """The same for Prometheus."""
    doors = counted()
    if doors is None:
        return []
    return [
        "# HELP kos_banned_addresses Addresses that may not connect now, because they failed to log in.",
        "# TYPE kos_banned_addresses gauge",
        *(f'kos_banned_addresses{{door="{door}"}} {number}' for door, number in sorted(doors.items())),
    ]
