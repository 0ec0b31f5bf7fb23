# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove every signature of a disk: of its partitions first, for nobody finds these once the table is gone.

Before them, what starts the old system goes: with half of it gone it would start into nothing, were the power cut.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout

from ..errors import ApplyFailed
from ..storage.actions import Wipe
from . import disks, release
from .context import Context
from .disks import Node
from .runner import Log, run

# Headers of LUKS2 are up to 4 MiB apart and their key slots end at 16 MiB (cryptsetup-luksFormat(8)); ZFS has labels
# and RAID superblocks in the last 512 KiB. Zeros there leave nothing for a later look to mistake, and no old key slot.
_HEAD, _TAIL = 16 << 20, 1 << 20
# The code in a master boot record, up to its signature; types of partitions that firmware looks for, in both tables.
_BOOT_CODE = 440
_STARTING = (system_layout.TYPES["esp"], system_layout.TYPES["bios"], "0xef")


def perform(context: Context, action: Wipe) -> None:
    """Wipe the disk. Raises ApplyFailed where it is not the one, or somebody holds it."""
    path = disks.find(action.disk).path
    release.free(path, context.log)
    [disk] = disks.look(path)
    with quiet(path):
        disks.overwrite(path, [(0, _BOOT_CODE)])
        for node in [*sorted(disk.partitions, key=lambda one: one.part_type not in _STARTING), disk]:
            wipe(node, context.log)
    disks.forget(path, context.log)
    _prove(path)


def stands(context: Context, action: Wipe) -> bool:
    """What is on the disk now is this install's own; the table says whether it is."""
    disks.find(action.disk)
    return True


def wipe(node: Node, log: Log) -> None:
    """Remove the signatures of one device. Raises ApplyFailed, OSError."""
    # --force: the table of a disk is a signature too.
    run(["wipefs", "--all", "--force", node.path], log=log)
    disks.overwrite(node.path, ends(0, node.size))


def ends(start: int, size: int) -> list[tuple[int, int]]:
    """Where signatures lie in what begins at `start`: offsets and lengths."""
    head, tail = min(_HEAD, size), min(_TAIL, size)
    return [(start, head), (start + size - tail, tail)]


@contextmanager
def quiet(path: str) -> Iterator[None]:
    """Keep udev from looking at a disk half-way (systemd.io, Locking Block Device Access). Raises ApplyFailed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prove(path: str) -> None:
    left = run(["wipefs", "--no-act", "--noheadings", "--parsable", path]).strip()
    [disk] = disks.look(path)
    if left or disk.children:
        raise ApplyFailed(f"{path} did not become empty: it may be failing; look at its health with smartctl")
