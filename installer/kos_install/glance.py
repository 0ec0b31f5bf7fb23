# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look into a file system that is somebody's, of which not one byte may change."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .actions.runner import run

_SAFE = "ro,nosuid,nodev,noexec"
# Mounting "ro" alone is not enough: ext4 replays its journal then (ext4(5)). Through a loop device that takes no
# write nothing can; without noload ext4 would refuse to be mounted through one.
_OF = {"vfat": "", "exfat": "", "ext4": ",noload", "iso9660": "", "ntfs": ""}
_DRIVER = {"ntfs": "ntfs3"}
TYPES = frozenset(_OF)


@contextlib.contextmanager
def into(device: str, filesystem: str) -> Iterator[Path]:
    """Where the files of a device are meanwhile; `filesystem` as blkid calls it. Raises ApplyFailed."""
    with tempfile.TemporaryDirectory(prefix="kos-glance-", dir="/run") as folder:
        run(mounting(device, filesystem, folder))
        try:
            yield Path(folder)
        finally:
            # Its loop device goes with it.
            run(["umount", folder])


def mounting(device: str, filesystem: str, folder: str) -> list[str]:
    """The command that mounts it so. `filesystem` is one of TYPES."""
    options = f"loop,{_SAFE}{_OF[filesystem]}"
    return ["mount", "-t", _DRIVER.get(filesystem, filesystem), "-o", options, device, folder]
