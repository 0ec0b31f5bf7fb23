# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans for the disks of test machines: the layout of every install, with argon2id as cheap as it gets."""

from __future__ import annotations

import struct
import uuid

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names

MIB, GIB = 1 << 20, 1 << 30
# How each block of a label of ZFS begins: its magic, and version 5000 (uberblock_impl.h).
UBERBLOCK = struct.pack("<QQ", 0x00BAB10C, 5000)
PASSPHRASE = "canary-Xk4-passphrase"
ANSWERS = {
    "version": 1,
    "user": {"ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa test"]},
}


def identity(what):
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, what))


def by_part(label):
    return f"/dev/disk/by-partuuid/{identity(label)}"


def target(path, serial, size=12 * GIB):
    return {"path": path, "serial": serial, "size": size}


def row(labels, start=MIB, first=1, end=12 * GIB - MIB):
    """Partitions one behind the other; a size of 0 is all that is left."""
    types = {names.ESP: "esp", names.JOURNAL: "journal", names.ROOT: "root-amd64", names.DATA: "data"}
    made = []
    for number, (label, size) in enumerate(labels, first):
        made.append({
            "number": number, "label": label, "type": names.TYPES[types[label.removesuffix(names.SECOND)]],
            "uuid": identity(label), "start": start, "size": size or end - start,
        })  # fmt: skip
        start += size
    return made


def luks(label, recovery=True):
    return {
        "kind": "luks", "id": f"luks-{label}", "device": by_part(label), "name": label,
        "uuid": identity(f"luks-{label}"),
        "memory_kib": 32768, "iterations": 4, "threads": 1, "recovery_key": recovery,
    }  # fmt: skip


def whole(disk, esp=256 * MIB, wipe=True, make=None, preserve=()):
    """The actions up to the mounted, unpacked target on one disk."""
    make = make or row([(names.ESP, esp), (names.JOURNAL, MIB), (names.ROOT, 0)], end=disk["size"] - MIB)
    before = [{"kind": "release", "id": "release", "disk": disk}, {"kind": "wipe", "id": "wipe", "disk": disk}]
    return [
        *(before if wipe else []),
        {"kind": "table", "id": "table", "disk": disk, "wipe": wipe, "make": make, "preserve": list(preserve)},
        {"kind": "journal", "id": "journal", "device": by_part(names.JOURNAL)},
        luks(names.ROOT),
        {
            "kind": "btrfs", "id": "btrfs", "devices": [f"/dev/mapper/{names.ROOT}"], "label": names.ROOT,
            "uuid": identity("btrfs"), "subvolumes": ["@root.1", *names.PERSISTENT],
        },
        {"kind": "fat", "id": "fat", "device": by_part(names.ESP), "label": "KOS-ESP", "volume_id": "4B4F5331"},
        {"kind": "mount", "id": "mount", "mounts": mounts()},
        {"kind": "unpack", "id": "unpack"},
    ]  # fmt: skip


def mounts():
    root, options = f"/dev/mapper/{names.ROOT}", "noatime"
    return [
        [root, "/", f"subvol=@root.1,{options}"],
        *[[root, where, f"subvol={name},{options}"] for name, where in names.PERSISTENT.items()],
        [by_part(names.ESP), names.ESP_AT, "umask=0077"],
        *[[f"{names.SYSIMAGE}/{name}", where, "bind"] for name, where in names.BOUND.items()],
    ]


# A disk that somebody else is on: number, start and length in sectors, type, name.
OTHERS = (
    (1, 2048, 204800, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI"),
    (3, 206848, 131072, "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Windows"),
    (7, 4194304, 1024000, "0fc63daf-8483-4772-8e79-3d69d8477de4", ""),
)


def kept():
    """The partitions of OTHERS, as a plan preserves them."""
    return [
        {"number": number, "start": start * 512, "size": length * 512, "uuid": identity(f"other {number}")}
        for number, start, length, _kind, _name in OTHERS
    ]


def others():
    """OTHERS for sfdisk."""
    rows = [
        f'disk{number} : start={start}, size={length}, type={kind}, uuid={identity(f"other {number}")}, name="{name}"'
        for number, start, length, kind, name in OTHERS
    ]
    return "\n".join(["label: gpt", "", *rows]) + "\n"


def beside(disk, preserve):
    """A plan for the gap between OTHERS."""
    make = row([(names.ESP, 64 * MIB), (names.JOURNAL, MIB), (names.ROOT, 0)], start=1026048 * 512, end=4194304 * 512)
    for number, one in zip((2, 4, 5), make, strict=True):
        one["number"] = number
    return whole(disk, wipe=False, make=make, preserve=preserve)


def asked(actions, **more):
    """What `diskapply` takes."""
    return {"plan": {"actions": actions}, "answers": ANSWERS, "secrets": {"passphrase": PASSPHRASE}} | more


def startable(disk, **how):
    """The same, up to what firmware starts; what the machine is called, and a playbook, are not of these tests."""
    return [
        *whole(disk, **how),
        {"kind": "configure", "id": "configure"},
        {"kind": "boot", "id": "boot", "loader": "systemd-boot", "esps": [by_part(names.ESP)]},
        {"kind": "verify", "id": "verify"},
        {"kind": "finish", "id": "finish"},
    ]
