# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy does with the volume: new data are encrypted from their first byte, and given up ones go from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from .. import files, system
from ..files import Root
from ..machine import cryptsetup
from . import record, units
from .record import in_use, inside, load, moved


def adopt(root: Root, manifest: Mapping[str, Any]) -> list[str]:
    """Have the data directories of a generation that are not there yet in the volume; gives them.

    Raises CommandFailed, OSError.
    """
    known = load(root)
    if known is None or not in_use(root) or not root.booted:
        return []
    wanted = {row["path"] for row in manifest.get("volumes", [])} - {*known.skipped}
    fresh = sorted(path for path in wanted if not os.path.lexists(root.join(path)))
    if not fresh:
        units.renew(root, manifest)
        return []
    for path in fresh:
        # What a run left there that was stopped while it gave up data of that name.
        shutil.rmtree(root.join(inside(path)), ignore_errors=True)
        os.makedirs(root.join(inside(path)), mode=0o700)
    units.put_in_force(root, units.write(root, [*moved(root), *fresh], manifest))
    units.reload(root)
    units.mount(root, fresh)
    return fresh


def release(root: Root, path: str) -> bool:
    """Delete the data of `path` where they are in the volume, which leaves an empty directory; whether they were.

    Raises CommandFailed, OSError.
    """
    here = moved(root)
    if path not in here:
        return False
    units.exclude(root, path)
    units.reload(root)
    system.run(["umount", path])
    shutil.rmtree(root.join(inside(path)))
    return True


def forget(root: Root) -> None:
    """Close a volume that nothing uses, and forget it; what is in it stays until somebody writes over it.

    Raises CommandFailed, OSError.
    """
    if load(root) is None or moved(root):
        return
    if record.mounted(root, record.VOLUME):
        system.run(["umount", record.VOLUME])
    if os.path.exists(root.join(record.DEVICE)):
        cryptsetup.close(record.NAME)
    # The record goes first: without it the rest is only litter.
    files.remove(root.join(record.RECORD))
    files.remove(root.join(record.GENERATOR))
    for folder in (root.join(record.FOLDER), os.path.dirname(root.join(record.HEADER))):
        shutil.rmtree(folder, ignore_errors=True)
    units.reload(root)
