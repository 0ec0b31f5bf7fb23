# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's own disk, kept and brought back: a test begins again in seconds where a deploy would take minutes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .command import run

# What of a node's folder is its disk: the overlay's upper side and what is bound to /home (`work` is scratch), or the
# file of a virtual node's.
PARTS = ("upper", "home", "containers", "disk.qcow2")
_SAVED = "saved"


def saved(folder: Path) -> bool:
    """Whether `save` has kept a disk here."""
    return (folder / _SAVED).is_dir()


def save(folder: Path) -> None:
    """Copy the disk of the node in `folder`, which is off; whole or not at all. Raises LabError."""
    unfinished = folder / f"{_SAVED}.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    _copy(folder, unfinished)
    if saved(folder):
        shutil.rmtree(folder / _SAVED)
    os.rename(unfinished, folder / _SAVED)


def reset(folder: Path) -> None:
    """Put the saved disk in the place of the present one; the node is off. Raises LabError."""
    for part in (*PARTS, "work"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "disk.qcow2").unlink(missing_ok=True)
    _copy(folder / _SAVED, folder)


def _copy(source: Path, target: Path) -> None:
    # cp keeps what makes an overlay: whiteouts (device files) and trusted extended attributes.
    run(
        [
            "cp",
            "--archive",
            "--reflink=auto",
            *(str(source / part) for part in PARTS if (source / part).exists()),
            str(target),
        ]
    )
