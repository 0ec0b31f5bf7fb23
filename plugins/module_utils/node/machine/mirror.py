# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mirrors of two disks: whether each half is there, and what is on one of them alone. The kernel says, to anybody.

A machine that ran with one disk remembers that: what comes back is older than the other, and is brought up to it.
"""

from __future__ import annotations

import glob
import os
from dataclasses import asdict, dataclass
from typing import Any

from .. import files, system
from ..files import Root
from . import systems

# Linux, Documentation/ABI/testing/sysfs-fs-btrfs: a folder for each btrfs that is mounted.
_BTRFS = "/sys/fs/btrfs"
_PROFILE = "raid1"
# There while a mirror has, or had, one of its disks missing.
NOTE = f"{systems.FOLDER}/mirror"
_BALANCE = [f"-{kind}convert={_PROFILE},soft" for kind in "dm"]


@dataclass(frozen=True)
class Mirror:
    """A mirrored btrfs: how many of its disks are missing, and the bytes that lie on one disk alone."""

    uuid: str
    missing: int
    alone: int


def found(root: Root) -> list[dict[str, Any]]:
    """Every mirror that is mounted, as plain data."""
    folders = sorted(glob.glob(root.join(f"{_BTRFS}/*-*")))
    return [
        asdict(_look(folder)) for folder in folders if _number(f"{folder}/allocation/metadata/{_PROFILE}/total_bytes")
    ]


def mend(root: Root, place: str = "/") -> str:
    """Bring the disk that was away up to the other, once it is there; what was done. Raises CommandFailed, OSError.

    Reading all of it (a scrub) writes anew what is old; what was written meanwhile has one copy until it is balanced.
    """
    mirrors = found(root)
    if any(row["missing"] for row in mirrors):
        files.write(root.join(NOTE), b"")
        return "one disk is missing"
    if not mirrors or not (os.path.exists(root.join(NOTE)) or any(row["alone"] for row in mirrors)):
        return "nothing to do"
    system.run(["btrfs", "scrub", "start", "-B", place])
    system.run(["btrfs", "balance", "start", *_BALANCE, place])
    files.remove(root.join(NOTE))
    return "both disks have all of it again"


def concerns(root: Root, mirrors: list[dict[str, Any]]) -> list[str]:
    """What a person must know of them, a sentence each."""
    if any(row["missing"] for row in mirrors):
        return [
            "One disk of the mirror is missing, and what is written now is on the other alone: "
            "switch the machine off, put the disk back, and start it"
        ]
    if os.path.exists(root.join(NOTE)):
        return ["A disk of the mirror was away and is being brought up to the other: leave both in until this is gone"]
    return [
        f"{-(-row['alone'] // 10**6)} MB are on one disk of the mirror alone: run systemctl start kos-mirror.service"
        for row in mirrors
        if row["alone"]
    ]


def _look(folder: str) -> Mirror:
    disks = glob.glob(f"{folder}/devinfo/*")
    alone = sum(_number(path) for path in glob.glob(f"{folder}/allocation/*/single/total_bytes"))
    missing = sum(_number(f"{disk}/missing") for disk in disks)
    return Mirror(os.path.basename(folder), missing, alone)


def _number(path: str) -> int:
    return int((files.read(path) or b"0").decode().strip() or 0)
