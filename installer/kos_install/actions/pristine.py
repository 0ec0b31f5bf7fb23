# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of what was installed: `kos-system reset` makes a fresh system of them. Every block is shared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node.machine import reset

from ..storage.actions import Btrfs
from . import filesystems
from .context import Context
from .runner import run


def keep(context: Context) -> None:
    """Make them, where they lack; what is mounted of them is on disk before. Raises ApplyFailed."""
    for one, top in _tops(context):
        for name in one.subvolumes:
            kept = reset.kept_as(name)
            if kept and not (top / kept).exists():
                run(["sync", "--file-system", str(top)], log=context.log)
                snapshot = ["btrfs", "subvolume", "snapshot", "-r", str(top / name), str(top / kept)]
                run(snapshot, log=context.log)
        run(["sync", "--file-system", str(top)], log=context.log)


def are_kept(context: Context) -> bool:
    """Whether all of them are there. Raises ApplyFailed."""
    wanted = ((top, reset.kept_as(name)) for one, top in _tops(context) for name in one.subvolumes)
    return all((top / kept).exists() for top, kept in wanted if kept)


def _tops(context: Context) -> Iterator[tuple[Btrfs, Path]]:
    """Each btrfs of the plan, and where all its subvolumes are seen meanwhile."""
    for one in context.plan.actions:
        if isinstance(one, Btrfs):
            with filesystems.mounted(one.devices[0], "btrfs", "subvolid=5", context.log) as top:
                yield one, top
