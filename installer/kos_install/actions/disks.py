# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks as they are right now: nothing is written to one that is not, still, the one that the plan means."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout

from .. import medium
from ..errors import ApplyFailed
from ..hardware.reading import plain
from ..storage.actions import Target
from .runner import Log, run, succeeds

_COLUMNS = "PATH,NAME,TYPE,SIZE,SERIAL,MODEL,RO,FSTYPE,UUID,PARTN,PARTUUID,PARTTYPE,PARTLABEL,START,LOG-SEC,MOUNTPOINTS"
_PATIENCE = 30.0  # seconds until a partition that was just made is there


@dataclass(frozen=True)
class Node:
    """A block device and what lies on top of it, as lsblk has it. Sizes in bytes."""

    path: str
    type: str
    size: int
    serial: str
    read_only: bool
    filesystem: str
    uuid: str
    number: int
    part_uuid: str
    part_type: str
    start: int
    sector: int
    mounts: tuple[str, ...]
    children: tuple[Node, ...]

    def walk(self) -> Iterator[Node]:
        """It, and all that lies on it, top first."""
        for child in self.children:
            yield from child.walk()
        yield self

    @property
    def partitions(self) -> list[Node]:
        """Its partitions, by number."""
        return sorted((one for one in self.children if one.type == "part"), key=lambda one: one.number)


def look(path: str = "") -> list[Node]:
    """Every disk, or the one of that path. Raises ApplyFailed."""
    said = run(["lsblk", "--json", "--bytes", "--output", _COLUMNS, *([path] if path else [])])
    return [_node(row) for row in json.loads(said)["blockdevices"]]


def find(target: Target) -> Node:
    """The disk that a plan means. Raises ApplyFailed where it is not there any more, or not alone, or not for this.

    It is known by its serial number: after another start of the machine it may have another path.
    """
    disks = [node for node in look() if node.type == "disk"]
    if target.serial:
        same = [node for node in disks if node.serial == target.serial]
    else:
        same = [node for node in disks if node.path == target.path]
    name = f"the disk {target.path} ({f'serial {target.serial}, ' if target.serial else ''}{target.size} bytes)"
    if len(same) != 1:
        why = "is not there any more" if not same else f"is there {len(same)} times"
        raise ApplyFailed(f"{name} {why}: nothing was written; plug in what was planned with, or make a new plan")
    [node] = same
    if node.size != target.size:
        raise ApplyFailed(f"{name} has {node.size} bytes now: another disk took its place; make a new plan")
    if node.read_only:
        raise ApplyFailed(f"{name} cannot be written to: it has a switch for that, or is broken")
    if str(medium.own_disk()) == node.path:
        raise ApplyFailed(f"{name} is what this system was started from: nothing was written to it")
    return node


def partition(device: str, targets: list[Target]) -> Path:
    """The block device of a partition that the plan made. Raises ApplyFailed where it does not lie on a disk of it."""
    path = appeared(device)
    for target in targets:
        disk = find(target)
        if any(one.path == str(path) for one in disk.partitions):
            return path
    raise ApplyFailed(f"{device} is {path}, which is on none of the disks of the plan: nothing was written to it")


def appeared(device: str) -> Path:
    """A block device, once the kernel and udev have made it. Raises ApplyFailed where that does not happen."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        settle()
        path = Path(os.path.realpath(device))
        if path.exists() and stat.S_ISBLK(path.stat().st_mode):
            return path
        if time.monotonic() > deadline:
            raise ApplyFailed(f"{device} did not appear within {_PATIENCE:.0f} seconds")
        time.sleep(0.2)


def settle() -> None:
    """Let udev see what was changed."""
    run(["udevadm", "settle", "--timeout=60"])


def reread(disk: str, log: Log) -> None:
    """Make the kernel see the partition table that is on a disk now, though others of its partitions are in use.

    Raises ApplyFailed.
    """
    _patiently(["partx", "--update", disk], log)
    run(["udevadm", "trigger", "--settle", "--subsystem-match=block", f"--name-match={disk}"])
    settle()


def forget(disk: str, log: Log) -> None:
    """Make the kernel forget the partitions of a disk that has none any more. Raises ApplyFailed."""
    _patiently(["blockdev", "--rereadpt", disk], log)
    settle()


def _patiently(argv: list[str], log: Log) -> None:
    """Run it once udev, which looks at whatever was written to, has let go. Raises ApplyFailed."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        settle()
        if time.monotonic() > deadline:
            run(argv, log=log)
            return
        if succeeds(argv, log=log):
            return
        time.sleep(0.5)


def overwrite(path: str, pieces: list[tuple[int, int]]) -> None:
    """Write zeros where (offset, length) in bytes say, and wait for the disk. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for offset, length in pieces:
            while length:
                written = os.pwrite(descriptor, bytes(min(length, 1 << 20)), offset)
                offset, length = offset + written, length - written
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def journals() -> list[Path]:
    """Every partition that is one of a journal."""
    rows = [one for disk in look() for one in disk.partitions]
    return [Path(one.path) for one in rows if one.part_type == system_layout.TYPES["journal"]]


def _node(row: dict[str, Any]) -> Node:
    mounts = tuple(one for one in row.get("mountpoints") or () if one)
    return Node(
        path=row["path"],
        type=row["type"],
        size=int(row["size"] or 0),
        serial=plain(row["serial"]),
        read_only=bool(row["ro"]),
        filesystem=row["fstype"] or "",
        uuid=row["uuid"] or "",
        number=int(row.get("partn") or 0),
        part_uuid=(row["partuuid"] or "").lower(),
        part_type=(row["parttype"] or "").lower(),
        start=int(row.get("start") or 0) * 512,  # lsblk(8): in sectors of 512 bytes, whatever the disk's are
        sector=int(row.get("log-sec") or 512),
        mounts=mounts,
        children=tuple(_node(child) for child in row.get("children", ())),
    )
