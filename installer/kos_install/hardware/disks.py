# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of this machine, and what is on them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names
from ansible_collections.kind.kos.plugins.module_utils.node.machine.signatures import signature, system

from ..engine import journal
from .model import Disk, Partition
from .reading import Ask, blank, number, plain

_SECTOR = 512  # the unit of sizes and places in /sys, whatever the disk's own is
_COLUMNS = "PATH,KNAME,TYPE,SIZE,MODEL,SERIAL,TRAN,RM,RO,ROTA,LOG-SEC,PTTYPE,PARTTYPE,PARTUUID,PARTLABEL,MOUNTPOINTS"
# What lsblk calls a disk though nobody installs onto it: memory, the network, the boot areas of an eMMC.
_NO_DISK = re.compile(r"(zram|nbd|ram|fd|loop)\d+|mmcblk\d+(boot\d+|rpmb)")
Bus = Literal["", "nvme", "sata", "usb", "virtio", "scsi", "mmc"]
_BUSES: dict[str, Bus] = {
    "nvme": "nvme", "sata": "sata", "ata": "sata", "usb": "usb", "virtio": "virtio", "mmc": "mmc",
    "sas": "scsi", "spi": "scsi", "fc": "scsi", "iscsi": "scsi",
}  # fmt: skip
# Where lsblk knows no bus, the kernel's name tells.
_NAMES: tuple[tuple[str, Bus], ...] = (("vd", "virtio"), ("nvme", "nvme"), ("mmcblk", "mmc"), ("sd", "scsi"))
_LINKS = ("by-id", "by-path")


def disks(root: Path, ask: Ask, boots: Mapping[str, str], running: frozenset[str]) -> list[Disk]:
    """Every disk; `running`: kernel names of those that the running system lies on, which is never offered."""
    said = ask(["lsblk", "--json", "--bytes", "--tree", "--output", _COLUMNS]) or {}
    links = _links(root)
    rows = (row for row in said.get("blockdevices", ()) if row["type"] == "disk")
    return [_disk(root, row, ask, boots, running, links) for row in rows if not _NO_DISK.fullmatch(row["kname"])]


def under(root: Path, device: str) -> frozenset[str]:
    """Kernel names of the disks that a block device (its kernel name) is made of, however deep."""
    folder = root / "sys/class/block" / device
    if not folder.exists():
        return frozenset()
    below = sorted(path.name for path in folder.glob("slaves/*"))
    if below:
        return frozenset().union(*(under(root, name) for name in below))
    return frozenset({folder.resolve().parent.name if (folder / "partition").exists() else device})


def _disk(
    root: Path, row: Mapping[str, Any], ask: Ask, boots: Mapping[str, str], running: frozenset[str],
    links: Mapping[str, list[str]],
) -> Disk:  # fmt: skip
    children = [child for child in row.get("children", ()) if child["type"] == "part"]
    partitions = sorted((_partition(root, child, ask, boots) for child in children), key=lambda one: one.number)
    found = signature(row["path"], ask) if not children and row["size"] else None
    return Disk(
        path=row["path"],
        size=int(row["size"] or 0),
        model=_text(row["model"]),
        serial=plain(row["serial"]),
        bus=_bus(row),
        by_id=links.get(row["kname"], []),
        sector=4096 if row["log-sec"] == 4096 else 512,
        removable=bool(row["rm"]),
        read_only=bool(row["ro"]),
        rotational=bool(row["rota"]),
        medium=row["kname"] in running,
        table=row["pttype"] if row["pttype"] in ("gpt", "dos") else "",
        holds=found.holds if found else "",
        filesystem=found.filesystem if found else "",
        fs_uuid=found.uuid if found else "",
        partitions=partitions,
        holders=sorted(_holders(root, row["kname"], [child["kname"] for child in children])),
        journal=any(one.label == names.JOURNAL for one in partitions),
        unbegun=_unbegun(root, partitions),
        installed=_installed(root, partitions),
    )


def _partition(root: Path, row: Mapping[str, Any], ask: Ask, boots: Mapping[str, str]) -> Partition:
    place = root / "sys/class/block" / row["kname"]
    found = signature(row["path"], ask)
    kind, uuid, label = (_text(row[key]) for key in ("parttype", "partuuid", "partlabel"))
    mounts = [where for where in row["mountpoints"] if where]
    return Partition(
        number=number(place / "partition"),
        start=number(place / "start") * _SECTOR,
        size=number(place / "size") * _SECTOR,
        path=row["path"],
        type=kind.lower(),
        uuid=uuid.lower(),
        label=label,
        holds=found.holds,
        filesystem=found.filesystem,
        fs_uuid=found.uuid,
        fs_label=found.label,
        os=system(kind.lower(), found, label, boots, uuid.lower()),
        mounted=mounts[0] if mounts else "",
    )


def _bus(row: Mapping[str, Any]) -> Bus:
    known = _BUSES.get(row["tran"] or "", "")
    if known:
        return known
    return next((bus for start, bus in _NAMES if row["kname"].startswith(start)), "")


def _links(root: Path) -> dict[str, list[str]]:
    """Kernel name of a disk -> its names that stay, those with a serial number first."""
    found: dict[str, list[str]] = {}
    for folder in _LINKS:
        for link in sorted((root / "dev/disk" / folder).glob("*")):
            found.setdefault(os.path.basename(os.path.realpath(link)), []).append(link.name)
    return found


def _holders(root: Path, disk: str, partitions: list[str]) -> set[str]:
    """What is built on a disk and its partitions, all the way up: md127, a volume of LVM, an open LUKS."""
    found: set[str] = set()
    waiting = [root / "sys/class/block" / name / "holders" for name in (disk, *partitions)]
    while waiting:
        for holder in waiting.pop().glob("*"):
            place = root / "sys/class/block" / holder.name
            name = _line(place / "dm/name") or holder.name
            if name not in found:
                found.add(name)
                waiting.append(place / "holders")
    return found


def _line(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _text(value: str | None) -> str:
    """What a disk says of itself, without what would disturb a screen: firmware pads, and sometimes lies."""
    return " ".join(plain(value).split())


def _unbegun(root: Path, partitions: list[Partition]) -> bool:
    """Whether an install made partitions here and ended before its journal: what cannot be read is none."""
    ours = [one for one in partitions if one.label.startswith(names.PREFIX)]
    others = [one for one in ours if one.type != names.TYPES["journal"]]
    journals = [one for one in ours if one.type == names.TYPES["journal"]]
    if len(journals) != 1:
        return False
    place = root / journals[0].path.lstrip("/")
    try:
        journal.read(place)
    except journal.NoJournal:
        with contextlib.suppress(OSError):
            return not journal.finished_by(place) and all(blank(root / one.path.lstrip("/")) for one in others)
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return False


def _installed(root: Path, partitions: list[Partition]) -> str:
    """By which answers a node was installed here; a partition that cannot be read tells of none."""
    for one in partitions:
        if one.label == names.JOURNAL and one.type == names.TYPES["journal"]:
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                return journal.finished_by(root / one.path.lstrip("/"))
    return ""
