# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an install that is given up left on another system's EFI partition: the next one must not find it there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node.machine import bootloader, recovery, slots

from ..storage.actions import Boot, Plan
from . import filesystems
from .runner import Log

# The loader first: without it nothing of the rest is started.
_ENTRIES = ("loader/entries/kos-*", recovery.ENTRY, bootloader.OTHER.format(name="*"))
_OWN = (bootloader.folder(True), *_ENTRIES, "EFI/Linux/kos-*", slots.FILES)


def remove(plan: Plan, log: Log) -> None:
    """Remove it from each partition that the plan shares; one without any is not written to. Raises ApplyFailed."""
    for device in [esp for one in plan.actions if isinstance(one, Boot) and one.shared_esp for esp in one.esps]:
        if not os.path.exists(device):
            continue
        with filesystems.mounted(device, "vfat", "ro", log) as esp:
            found = bool(list(own(esp)))
        if found:
            with filesystems.mounted(device, "vfat", "umask=0077", log) as esp:
                for path in own(esp):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def own(esp: Path) -> Iterator[Path]:
    """What is ours on an EFI partition that is mounted there."""
    for pattern in _OWN:
        yield from sorted(esp.glob(pattern))
    conf = esp / bootloader.LOADER_CONF
    if conf.is_file() and conf.read_bytes() in {bootloader.configuration(one).encode() for one in (False, True)}:
        yield conf
