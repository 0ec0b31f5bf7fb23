# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels that a person's own apt brings into the running root, and takes away: hooks of the kernel's packages."""

from __future__ import annotations

import time
from typing import Any

from ..files import Root
from . import keeping, layout, slots, system_update, systems
from .candidate import Upgraded
from .systems import Known


def renew(root: Root, version: str) -> dict[str, Any]:
    """Make a boot entry of the running root with kernel `version`; the one with the old kernel stays to go back to.

    It is what the kernel's package calls when a person upgrades it by apt. Raises NodeError, OSError.
    """
    here, esps = system_update.begin(root)
    files_of = (root.join(f"/boot/{name}-{version}") for name in ("vmlinuz", "initrd.img"))
    with layout.alone():
        record = keeping.looked_at(root, here, esps)
        number = system_update.next_number(root, esps)
        for esp in esps:
            for older in slots.listing(esp):
                if older.number != here.slot and not older.good:
                    slots.remove(esp, older.number)
        system_update.stage_everywhere(
            root, esps, system_update.entry_of(number, here.root, Upgraded([], version, *files_of), here.arguments)
        )
        row = Known(here.root, version, "kernel", "published", int(time.time()))
        systems.save(root, record.put(number, row))
        for esp in esps:
            slots.publish(esp, number)
    return {"slot": number, "kernel": version}


def forget(root: Root, version: str) -> dict[str, Any]:
    """Drop the boot entries of the running root whose kernel was removed, but never the one that runs.

    Raises NodeError, OSError.
    """
    here, esps = system_update.begin(root)
    with layout.alone():
        record = keeping.looked_at(root, here, esps)
        rows = record.known.items()
        gone = [n for n, row in rows if row.root == here.root and row.kernel == version and n != here.slot]
        for esp in esps:
            for slot in slots.listing(esp):
                if slot.number in gone:
                    slots.remove(esp, slot.number)
        systems.save(root, record.without(gone))
    return {"slots": gone}
