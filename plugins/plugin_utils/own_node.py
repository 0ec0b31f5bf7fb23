# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a node that the installer made says what it is: its own inventory, which `kai deploy` takes by default."""

from __future__ import annotations

from pathlib import Path

INVENTORY = "/etc/kos/inventory/node.yml"
LAYER = "/etc/kos/layers/settings.yaml"


def inventory() -> str | None:
    """The inventory of this machine, where it has one."""
    return INVENTORY if Path(INVENTORY).is_file() else None
