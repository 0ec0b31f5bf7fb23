# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans for the disks of test machines: the layout of every install, with argon2id as cheap as it gets."""

from __future__ import annotations

import uuid

from ansible_collections.kind.kos.plugins.module_utils.node import system_layout as names

MIB, GIB = 1 << 20, 1 << 30
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
