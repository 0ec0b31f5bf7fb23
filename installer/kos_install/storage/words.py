# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan in words: one short sentence for each action."""

from __future__ import annotations

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names

from .actions import Action, Boot, Btrfs, Fat, Luks, Mount, Release, Table, Wipe

# What a partition that is made is for.
PURPOSE = {
    names.BIOS: "boot code",
    names.ESP: "boot files",
    names.JOURNAL: "resuming",
    names.ROOT: "encrypted",
    names.DATA: "encrypted",
}
# What a disk or a partition may be that is no file system of its own.
HOLDS = {
    "luks": "encrypted volume (LUKS)",
    "raid": "member of a RAID",
    "lvm": "part of an LVM group",
    "zfs": "part of a ZFS pool",
    "bcache": "part of a bcache",
    "bitlocker": "Windows (BitLocker)",
}
_WHOLE = {
    "journal": "begin the journal: from here on an interrupted install can be resumed",
    "unpack": "unpack the system of this medium",
    "configure": "write what makes it this machine: name, users, network, mounts",
    "converge": "make it the node of its profile",
    "verify": "prove that all of it is as asked",
    "finish": "make it bootable",
}


def said(action: Action) -> str:
    """What an action does."""
    match action:
        case Release():
            return f"let go of what holds {action.disk.path}"
        case Wipe():
            return f"WIPE {action.disk.path}: remove every signature on it"
        case Table():
            return _table(action)
        case Luks():
            return f"encrypt {action.name} (LUKS2, argon2id with {_memory(action.memory_kib)})"
        case Btrfs():
            mirror = " as a mirror" if len(action.devices) > 1 else ""
            return f"make a btrfs on {action.label}{mirror}: {', '.join(action.subvolumes)}"
        case Fat():
            return f"format {action.label} for the firmware"
        case Mount():
            return f"mount {len(action.mounts)} places of the new system"
        case Boot():
            return f"put kernel, initrd and {action.loader} in place{', signed with own keys' if action.uki else ''}"
        case _:
            return _WHOLE[action.kind]


def purpose(label: str) -> str:
    """What a partition of ours is for; also one of a second disk."""
    return PURPOSE.get(label.removesuffix(names.SECOND), "")


def _table(action: Table) -> str:
    made = ", ".join(part.label for part in action.make)
    kept = f"; {len(action.preserve)} partitions stay" if action.preserve else ""
    return f"{'new partition table' if action.wipe else 'new partitions'} on {action.disk.path}: {made}{kept}"


def _memory(kib: int) -> str:
    return f"{kib // 1024} MiB" if kib >= 1024 else f"{kib} KiB"
