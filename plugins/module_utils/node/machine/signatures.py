# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies on a disk or a partition, told from its signatures alone: nothing foreign is ever mounted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import system_layout as names

# What makes a disk or a partition more than empty space.
Holder = Literal["", "luks", "raid", "lvm", "zfs", "swap", "filesystem", "bcache", "bitlocker"]
# A program and its arguments -> what it printed as JSON, or None where it failed.
Ask = Callable[[Sequence[str]], Any]

# libblkid's names of what is no file system -> ours. Behind them are disks that must be let go of before a wipe.
_HOLDERS: dict[str, Holder] = {
    "crypto_LUKS": "luks",
    "LVM1_member": "lvm",
    "LVM2_member": "lvm",
    "zfs_member": "zfs",
    "swap": "swap",
    "swsuspend": "swap",
    "bcache": "bcache",
    "BitLocker": "bitlocker",
}
_RAID = "raid_member"  # linux_raid_member, isw_raid_member, ddf_raid_member …
_LINUX = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs")
_APPLE = ("apfs", "hfs", "hfsplus")
# Types of GPT that say more than a file system does: what serves a system, and is none.
# Sources: Microsoft, UEFI, Discoverable Partitions Specification.
TYPES = {
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": "reserved by Windows",
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "recovery of Windows",
    names.TYPES["esp"]: "EFI system partition",
    names.TYPES["bios"]: "boot code of GRUB",
    names.TYPES["journal"]: "journal of an install",
}
# Of several signatures the one that counts comes first: an old file system may shine through a newer container.
_RANK = {"crypto": 0, "raid": 1, "filesystem": 2, "other": 3}


@dataclass(frozen=True)
class Signature:
    """What was found, as libblkid calls it."""

    type: str = ""
    uuid: str = ""
    label: str = ""

    @property
    def holds(self) -> Holder:
        """What it makes of the device."""
        if self.type.endswith(_RAID):
            return "raid"
        return _HOLDERS.get(self.type, "filesystem" if self.type else "")

    @property
    def filesystem(self) -> str:
        """The file system, where it is one."""
        return self.type if self.holds == "filesystem" else ""


def signature(device: str, ask: Ask) -> Signature:
    """What is on a device; of several the outermost. A partition table is none."""
    said = ask(["wipefs", "--json", "--output", "TYPE,USAGE,UUID,LABEL", device]) or {}
    rows = [row for row in said.get("signatures", ()) if row.get("usage") in _RANK]
    rows.sort(key=lambda row: _RANK[row["usage"]])
    if not rows:
        return Signature()
    return Signature(*(str(rows[0].get(key) or "") for key in ("type", "uuid", "label")))


def system(kind: str, found: Signature, label: str = "", boots: Mapping[str, str] | None = None, uuid: str = "") -> str:
    """What is installed there, in words; empty where nobody could tell.

    `kind` is GPT's type; `boots`: GPT's UUID of a partition -> what the firmware starts from it.
    """
    if label.startswith("kos-"):
        return f"kOS ({label})"
    if kind in TYPES:
        started = (boots or {}).get(uuid)
        return f"EFI: {started}" if started else TYPES[kind]
    if found.holds == "bitlocker":
        return "Windows (BitLocker)"
    if found.type == "ntfs":
        return "Windows (NTFS)"
    if found.filesystem in _LINUX:
        return f"Linux ({found.filesystem})"
    return f"macOS ({found.filesystem})" if found.filesystem in _APPLE else ""
