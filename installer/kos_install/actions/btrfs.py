# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A btrfs over one opened device, or a mirror of two, with its subvolumes."""

from __future__ import annotations

import os

from ..errors import ApplyFailed
from ..storage.actions import Btrfs
from . import filesystems
from .context import Context
from .runner import run

# A subvolume's own folder has this inode number, and no other folder has (btrfs(5)).
_SUBVOLUME = 256
_TOP = "subvolid=5"


def perform(context: Context, action: Btrfs) -> None:
    """Make it. Raises ApplyFailed."""
    mirror = ["--data", "raid1", "--metadata", "raid1"] if len(action.devices) > 1 else []
    named = ["--label", action.label, "--uuid", action.uuid]
    run(["mkfs.btrfs", "--quiet", "--force", *named, *mirror, *_devices(action)], log=context.log)
    run(["udevadm", "settle"], log=context.log)
    with filesystems.mounted(action.devices[0], "btrfs", _TOP, context.log) as top:
        for name in action.subvolumes:
            run(["btrfs", "subvolume", "create", str(top / name)], log=context.log)
        run(["sync", "--file-system", str(top)], log=context.log)


def stands(context: Context, action: Btrfs) -> bool:
    """Whether each device is of this file system, and every subvolume is there."""
    if any(filesystems.probe(device, "UUID") != action.uuid for device in _devices(action)):
        return False
    try:
        with filesystems.mounted(action.devices[0], "btrfs", _TOP, context.log) as top:
            return all((top / name).is_dir() and (top / name).stat().st_ino == _SUBVOLUME for name in action.subvolumes)
    except ApplyFailed:
        return False


def _devices(action: Btrfs) -> list[str]:
    """Only what this install has opened: never a disk, nor a partition in clear. Raises ApplyFailed."""
    for device in action.devices:
        if not device.startswith("/dev/mapper/") or not os.path.exists(device):
            raise ApplyFailed(f"{device} is not open: the step that encrypts it comes first")
    return action.devices
