# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which module carries out which kind of action.

A module has `perform(context, action)` and `stands(context, action)`: whether what was done is still so, looked up and
not believed. It may have `again(context, action)`, what brings back the part that does not outlive a start of the
machine; and VOLATILE, where all of it does not, and what comes after stays done though it is done anew.
"""

from __future__ import annotations

import importlib
from types import ModuleType

# Late: half of them is slow to load, and none is needed to plan.
MODULES = {
    "release": "release",
    "wipe": "wipe",
    "table": "partitions",
    "journal": "journal",
    "luks": "luks",
    "btrfs": "btrfs",
    "fat": "fat",
    "mount": "mount",
    "unpack": "unpack",
    "configure": "configure",
    "converge": "converge",
    "boot": "boot",
    "verify": "verify",
    "finish": "finish",
}


def module(kind: str) -> ModuleType:
    """The module of a kind. Raises KeyError for none."""
    return importlib.import_module(f"{__package__}.{MODULES[kind]}")
