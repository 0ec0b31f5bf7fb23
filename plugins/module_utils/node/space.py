# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is there room for a change? Asked before anything is touched, in bytes and in files, for each file system."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .files import NodeError, Root
from .journal import RESERVE_BYTES, RESERVE_FILES

# Beside the reserve: journal, originals, dpkg's second copy of its records, a generation.
_OWN_BYTES = 16 * 2**20
_OWN_FILES = 200
# What stays free beside a large file, for everything else on its disk.
SPARE = 256 * 2**20


class NoRoom(NodeError):
    """The change does not fit on the node's disk; nothing was touched."""


@dataclass(frozen=True)
class Need:
    """What will be written below `path` (as the node sees it): bytes, files, and the word for it."""

    path: str
    size: int
    files: int
    what: str


def for_change(files: int) -> Need:
    """What any change needs that writes `files` files: their new and old content, the journal, the way back."""
    return Need("/var/lib", _OWN_BYTES + RESERVE_BYTES, _OWN_FILES + RESERVE_FILES + 3 * files, "for the change itself")


def for_bundle(size: int) -> Need:
    """What `size` bytes of a bundle need: as they were sent, and unpacked."""
    return Need("/var/lib", 2 * size, 0, "of the bundle, which is there twice for a moment")


def for_packages(download: int, installed: int) -> list[Need]:
    """What packages need: `download` bytes to be fetched, which then take `installed` bytes."""
    return [
        Need("/var/cache/apt/archives", download, 0, "of downloads"),
        Need("/usr", installed, 0, "of installed packages"),
    ]


def require(root: Root, needs: list[Need]) -> None:
    """Raises NoRoom, with the figures, where a file system has less than what `needs` will write to it."""
    by_device: dict[int, list[Need]] = {}
    for need in needs:
        by_device.setdefault(os.stat(_existing(root, need.path)).st_dev, []).append(need)
    faults = [fault for group in by_device.values() if (fault := _fault(root, group))]
    if faults:
        raise NoRoom("; ".join(faults))


def _fault(root: Root, needs: list[Need]) -> str | None:
    state = os.statvfs(_existing(root, needs[0].path))
    size, number = sum(need.size for need in needs), sum(need.files for need in needs)
    free = state.f_bavail * state.f_frsize
    if free < size:
        parts = ", ".join(f"{_mb(need.size)} {need.what}" for need in needs if need.size)
        return (
            f"no room on the disk of {needs[0].path}: {_mb(size)} are needed ({parts}), {_mb(free)} are free:"
            f" free {_mb(size - free)} more, then run again"
        )
    # Some file systems have no table of files that could fill up, and say zero.
    if state.f_files and state.f_favail < number:
        return (
            f"no room on the disk of {needs[0].path}: {number} more files are needed (inodes), {state.f_favail} are"
            " free: delete files, then run again"
        )
    return None


def _existing(root: Root, path: str) -> str:
    real = root.join(path)
    while not os.path.exists(real):
        real = os.path.dirname(real)
    return real


def _mb(size: int) -> str:
    return f"{-(-size // 10**6)} MB"
