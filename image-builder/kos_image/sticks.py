# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which disks this machine has, and which of them may be overwritten. Pure but for ``listing``."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.cli.view import size as shown

from .errors import HostError, UsageError

_COLUMNS = "PATH,MAJ:MIN,TYPE,SIZE,MODEL,SERIAL,TRAN,RM,HOTPLUG,RO,MOUNTPOINTS,FSTYPE,LABEL,PARTLABEL"
_WHOLE = ("disk", "loop")
_BUSES = {"usb": "USB", "nvme": "NVMe", "sata": "SATA", "ata": "ATA", "sas": "SAS", "mmc": "card", "virtio": "virtio"}
_BY_ID = Path("/dev/disk/by-id")


@dataclass(frozen=True)
class Disk:
    """A block device as lsblk sees it: `size` in bytes, `number` as ``8:16``, `parts` what lies on it."""

    path: str
    number: str
    kind: str
    size: int
    model: str
    serial: str
    bus: str
    removable: bool
    read_only: bool
    mounts: tuple[str, ...]
    content: str
    parts: tuple[Disk, ...]

    @property
    def all(self) -> Iterator[Disk]:
        """This device and everything on it."""
        yield self
        for part in self.parts:
            yield from part.all

    @property
    def holds(self) -> str:
        """What is on it, in a few words."""
        return ", ".join(dict.fromkeys(one.content for one in self.all if one.content)) or "nothing that is known"

    @property
    def said(self) -> str:
        """Which one it is, for who has several: path, model, size and bus."""
        return f"{self.path}, {self.model or 'no model'}, {shown(self.size)}, {self.bus}"

    @property
    def name(self) -> str:
        """What a person types to say that this one is meant: its model, else its path."""
        return self.model or self.path


def listing() -> list[Disk]:
    """The disks of this machine. Raises HostError."""
    argv = ["lsblk", "--json", "--bytes", "--tree", "--output", _COLUMNS]
    try:
        done = subprocess.run(argv, capture_output=True, check=False, text=True)
    except FileNotFoundError as error:
        raise HostError("lsblk is not installed on this machine: apt install util-linux") from error
    if done.returncode and not done.stdout:
        raise HostError(f"lsblk cannot list the disks of this machine: {done.stderr.strip()}")
    return read(json.loads(done.stdout))


def read(facts: Mapping[str, Any]) -> list[Disk]:
    """The disks in what ``lsblk --json --bytes`` said."""
    return [_disk(row) for row in facts["blockdevices"]]


def _disk(row: Mapping[str, Any]) -> Disk:
    label = row.get("label") or row.get("partlabel") or ""
    return Disk(
        path=row["path"],
        number=row["maj:min"],
        kind=row["type"],
        size=int(row["size"] or 0),
        model=(row.get("model") or "").strip(),
        serial=(row.get("serial") or "").strip(),
        bus=_BUSES.get(row.get("tran") or "", row.get("tran") or "bus unknown"),
        removable=bool(row.get("rm") or row.get("hotplug") or row.get("tran") == "usb"),
        read_only=bool(row.get("ro")),
        mounts=tuple(one for one in row.get("mountpoints") or () if one),
        content=" ".join(filter(None, (row.get("fstype"), label))),
        parts=tuple(_disk(part) for part in row.get("children") or ()),
    )


def candidates(disks: Iterable[Disk]) -> list[Disk]:
    """The disks that can be pulled out and have a medium in them."""
    return [disk for disk in disks if disk.kind == "disk" and disk.removable and disk.size]


def choose(disks: Collection[Disk], selector: str) -> Disk:
    """The one device that is named by its path, a link to it, its name in by-id, or its serial. Raises UsageError."""
    known = [one for disk in disks for one in disk.all]
    paths = {os.path.realpath(selector), os.path.realpath(_BY_ID / selector)} if selector else set()
    found = {one.number: one for one in known if one.path in paths or (one.serial == selector and one.kind in _WHOLE)}
    if not found:
        way = "kos-image write IMAGE lists those that it has" if candidates(disks) else "no stick or card is plugged in"
        raise UsageError(f"this machine has no disk '{selector}': {way}")
    if len(found) > 1:
        said = ", ".join(sorted(one.path for one in found.values()))
        raise UsageError(f"'{selector}' names more than one disk ({said}): give the path of one")
    return next(iter(found.values()))


def refusal(disk: Disk, size: int, needed: Mapping[str, str], internal: bool = False) -> str | None:
    """Why an image of `size` bytes must not be written there, or None. `internal`: a disk that stays in is meant.

    `needed` says what this machine needs of a device, by number: ``{"8:1": "the image"}``.
    """
    inside = next((needed[one.number] for one in disk.all if one.number in needed), None)
    mounted = next(((one, one.mounts[0]) for one in disk.all if one.mounts), None)
    holder = next((one for one in disk.all if one.kind not in (*_WHOLE, "part")), None)
    if disk.kind not in _WHOLE:
        return f"{disk.path} is no whole disk but a {disk.kind}: name the disk that it is on"
    if inside:
        return f"{inside} is on {disk.path}: name another disk"
    if mounted:
        part, where = mounted
        way = f"swapoff {part.path}" if where == "[SWAP]" else f"umount {where}"
        return f"{part.path} is in use at {where}: {way}, where that is not this system's"
    if holder:
        return f"{disk.path} is in use by {holder.path} ({holder.kind}): close that first"
    if not (disk.removable or internal):
        return f"{disk.said}, is built into this machine: say --internal where you mean it"
    if disk.read_only:
        return f"{disk.path} is write-protected: look for a switch on the stick or its reader"
    if disk.size < size:
        return f"{disk.path} has {disk.size} bytes, and the image {size}: take a larger stick"
    return None


def needed_devices(image: Path, places: Collection[str] = ("/", "/boot", "/boot/efi", "/usr")) -> dict[str, str]:
    """The devices that this system and the image lie on, by number, and what lies there."""
    found: dict[str, str] = {}
    for place, said in [*((place, f"this system's {place}") for place in places), (str(image), "the image")]:
        if os.path.exists(place):
            number = os.stat(place).st_dev
            found.setdefault(f"{os.major(number)}:{os.minor(number)}", said)
    return found
