# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A FAT32 for the firmware."""

from __future__ import annotations

from ..storage.actions import Fat, Table
from . import disks, filesystems
from .context import Context
from .runner import run


def perform(context: Context, action: Fat) -> None:
    """Make it. Raises ApplyFailed."""
    device = _device(context, action)
    volume = action.volume_id.replace("-", "").upper()
    run(["mkfs.vfat", "-F", "32", "-n", action.label.upper()[:11], "-i", volume, device], log=context.log)
    run(["sync", device], log=context.log)


def stands(context: Context, action: Fat) -> bool:
    """Whether it is this FAT32."""
    found = filesystems.probe(_device(context, action), "UUID").replace("-", "")
    return found == action.volume_id.replace("-", "").upper()


def _device(context: Context, action: Fat) -> str:
    targets = [one.disk for one in context.plan.actions if isinstance(one, Table)]
    return str(disks.partition(action.device, targets))
