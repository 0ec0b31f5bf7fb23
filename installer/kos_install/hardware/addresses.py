# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses of this machine, as a person types them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any


def addresses() -> list[str]:
    """Those of this machine, now; none where nothing says so."""
    try:
        done = subprocess.run(["ip", "--json", "address"], capture_output=True, check=True, text=True, timeout=20)
        return listed(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def listed(listing: Sequence[Mapping[str, Any]]) -> list[str]:
    """The addresses in what ``ip --json address`` says, but for those of this machine to itself."""
    return [
        f"{one['local']} ({row['ifname']})"
        for row in listing
        for one in row.get("addr_info", ())
        if one.get("scope") == "global"
    ]
