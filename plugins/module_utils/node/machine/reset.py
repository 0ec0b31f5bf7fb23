# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back to what the installer left: a new root out of the snapshot it kept; data go only when that is asked for.

The snapshots cost nothing at first and, as the system is updated, at most what the image had when it was installed.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any

from .. import files, system
from ..files import NodeError, Root
from . import candidate, layout, slots, system_layout, system_update, systems
from .systems import Known

FIRST = 1
_PRISTINE = ("@var", "@home")
_GONE = re.compile(r"^@\w+\.gone-\d+$")


class NotConfirmed(NodeError):
    """The reset was not confirmed by the node's name, or has nothing to go back to."""


def kept_as(subvolume: str) -> str | None:
    """The name of the snapshot that an installer keeps of a subvolume; None for one of which it keeps nothing."""
    if subvolume == system_layout.ROOT_SLOT.format(number=FIRST):
        return system_layout.ROOT_SLOT.format(number=systems.PRISTINE)
    return _name(subvolume) if subvolume in _PRISTINE else None


def _name(subvolume: str) -> str:
    return f"{subvolume}.{systems.PRISTINE}"


def reset(root: Root, confirm: str, data: bool) -> dict[str, Any]:
    """Make a root out of the installer's snapshot, tried like an update; with `data`, /var and /home too.

    What ran, and the data, stay until the fresh system has come up well. Raises NodeError, OSError.
    """
    name = os.uname().nodename
    if confirm != name:
        what = "and empties /var and /home" if data else "and keeps /var and /home"
        raise NotConfirmed(f"this makes {name} as the installer left it {what}; to confirm, add: --confirm {name}")
    here = layout.require(root)
    layout.apart()
    layout.mount_top(here)
    esps = layout.esps()
    if not os.path.isdir(candidate.path(systems.PRISTINE)):
        raise NotConfirmed("the installer's snapshot is not on this disk any more: install anew from the medium")
    with files.lock(root), layout.alone():
        number = system_update.next_number(root, esps)
        row = Known(number, why="reset", state="published", made=int(time.time()))
        candidate.snapshot(systems.PRISTINE, number)
        with candidate.entered(here, number):
            found = candidate.as_it_is(number)
            entry = system_update.entry_of(number, number, found, here.arguments)
            system_update.stage_everywhere(root, esps, entry)
        record = systems.load(root).put(number, row)
        systems.save(root, record)
        if data:
            _exchange(root, number)
        for esp in esps:
            slots.publish(esp, number)
    return {"slot": number, "data": data}


def _exchange(root: Root, number: int) -> None:
    """Put fresh subvolumes in the place of those with the data, in one step each; those in use keep their content."""
    top = _data_top()
    for name in _PRISTINE:
        fresh = os.path.join(top, f"{name}.gone-{number}")
        system.run(["btrfs", "subvolume", "snapshot", os.path.join(top, _name(name)), fresh])
        if name == "@var":
            system.run(["cp", "-a", root.join(systems.FOLDER), os.path.join(fresh, "lib")])
        system.run(["btrfs", "filesystem", "sync", top])
        system.run(["mv", "--exchange", "--no-target-directory", fresh, os.path.join(top, name)])


def _data_top() -> str:
    """Where the subvolumes of the disk with /var lie."""
    device = layout.device_of("/var")
    place = "/run/kos/data"
    os.makedirs(place, mode=0o700, exist_ok=True)
    system.run(["mount", "-t", "btrfs", "-o", "subvolid=5", device, place])
    return place


def sweep() -> None:
    """Delete the data that a reset put aside: the fresh system came up well. Raises CommandFailed."""
    top = _data_top()
    for name in os.listdir(top):
        if _GONE.match(name):
            system.run(["btrfs", "subvolume", "delete", os.path.join(top, name)])
