# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check may need of the place it runs in, and why a place has it not.

A check declares them: `@pytest.mark.needs("own kernel", "restart")`. Where one is missing it is not run and says
*not shown here: why*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

NOT_SHOWN = "not shown here: "
NOT_PLANNED = "not in the plan: "
Circumstances = Mapping[str, Any]


def _own_kernel(found: Circumstances) -> str:
    container = found["place"]["container"]
    return "" if container in ("", "none") else f"the node is a container ({container}) on somebody else's kernel"


def _encrypted_disk(found: Circumstances) -> str:
    return "" if found["place"]["crypt"]["/home"] else "the disk of the node's system is not encrypted"


def _encrypted_data(found: Circumstances) -> str:
    return "" if any(found["place"]["crypt"].values()) else "nothing of the node is encrypted"


def _outside(found: Circumstances) -> str:
    return "" if found["outside"] else "from here the node's SSH alone is reached, through one port that leads to it"


def _restart(found: Circumstances) -> str:
    return "" if found["may_restart"] else "this run may not restart the node (--restart lets it)"


# By name: why the place has it not; empty where it has.
NEEDS: Mapping[str, Callable[[Circumstances], str]] = {
    "own kernel": _own_kernel,
    "encrypted disk": _encrypted_disk,
    "encrypted data": _encrypted_data,
    "outside": _outside,
    "restart": _restart,
}


def hindrance(needs: Iterable[str], found: Circumstances) -> str:
    """Why what has these needs cannot be shown here; empty where it can."""
    return "; ".join(filter(None, (NEEDS[need](found) for need in needs)))
