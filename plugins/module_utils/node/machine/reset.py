# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back to what the installer left: a new root out of the snapshot it kept; data go only when that is asked for.

The snapshots cost nothing at first and, as the system is updated, at most what the image had when it was installed.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

from .. import files
from ..files import NodeError, Root
from . import candidate, layout, slots, system_layout, system_update, systems
from . import data as data_of
from .systems import Known

FIRST = 1


class NotConfirmed(NodeError):
    """The reset was not confirmed by the node's name, or has nothing to go back to."""


def kept_as(subvolume: str) -> str | None:
    """The name of the snapshot that an installer keeps of a subvolume; None for one of which it keeps nothing."""
    if subvolume == system_layout.ROOT_SLOT.format(number=FIRST):
        return system_layout.ROOT_SLOT.format(number=systems.PRISTINE)
    return f"{subvolume}.{systems.PRISTINE}" if subvolume in data_of.NAMES else None


def reset(root: Root, confirm: str, data: bool) -> dict[str, Any]:
    """Make a root out of the installer's snapshot, tried like an update; with `data`, /var and /home too.

    The fresh system mounts fresh subvolumes, and what runs goes on with its own: they stay until the fresh one has come
    up well, and longer where a person pinned a system that has them. Raises NodeError, OSError.
    """
    name = os.uname().nodename
    if confirm != name:
        what = "and empties /var and /home" if data else "and keeps /var and /home"
        raise NotConfirmed(f"this makes {name} as the installer left it {what}; to confirm, add: --confirm {name}")
    here, esps = system_update.begin(root)
    if not os.path.isdir(candidate.path(systems.PRISTINE)):
        raise NotConfirmed("the installer's snapshot is not on this disk any more: install anew from the medium")
    with files.lock(root), layout.alone():
        number = system_update.next_number(root, esps)
        row = Known(number, why="reset", made=int(time.time()))
        # Before anything bears this number: whatever cuts this off, no other attempt takes it.
        record = systems.load(root).put(number, row)
        systems.save(root, record)
        try:
            candidate.snapshot(systems.PRISTINE, number)
            mounted = data_of.fresh(number) if data else data_of.of_root(here.root)
            data_of.give(number, mounted)
            with candidate.entered(here, number):
                found = candidate.as_it_is(number)
                entry = system_update.entry_of(number, number, found, here.arguments)
                system_update.stage_everywhere(root, esps, entry)
        except (NodeError, OSError) as error:
            system_update.give_up(root, esps, record, number, error)
            raise
        systems.save(root, record.put(number, replace(row, state="published")))
        if data:
            data_of.hand_over(root, number)
        for esp in esps:
            slots.publish(esp, number)
    return {"slot": number, "data": data}
