# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this machine runs from, if kOS's installer laid it out: boot entry, root subvolume, EFI partitions."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .. import files, system
from ..files import NodeError, Root
from . import system_layout

CMDLINE, MOUNTS, FSTAB = "/proc/cmdline", "/proc/self/mountinfo", "/etc/fstab"
# All of it is mounted in a namespace of this process alone, and gone with it.
TOP, UNMOUNTED, CANDIDATE = "/run/kos/top", "/run/kos/firmware", "/run/kos/candidate"
LOCK = "/run/kos/system.lock"
# What an entry's own arguments are made of; the boot loader adds words of its own to what the kernel reports.
ARGUMENTS = "/etc/kernel/cmdline"
_ROOT = re.compile(r"\bsubvol=/?@root\.(\d+)")
_SLOT = re.compile(r"^kos\.slot=(\d+)$")
# A kernel that panics, an initrd that finds no root (dracut.cmdline(7)).
RESTARTING = ("panic=30", "rd.shell=0", "rd.emergency=reboot")
_LOADERS = ("BOOT_IMAGE=", "initrd=")


class OtherLayout(NodeError):
    """This machine's disk was not laid out by kOS's installer."""


@dataclass(frozen=True)
class Layout:
    """What runs: the boot entry `slot`, on the root subvolume number `root` of the btrfs on `device`."""

    slot: int
    root: int
    device: str
    arguments: Sequence[str]


def find(root: Root) -> Layout | None:
    """This machine's layout; None where its disk was laid out by somebody else."""
    words = (files.read(root.join(CMDLINE)) or b"").decode().split()
    numbers = [int(match[1]) for word in words if (match := _ROOT.search(word))]
    device = _device(root)
    if not numbers or device is None:
        return None
    own = [int(match[1]) for word in words if (match := _SLOT.match(word))]
    return Layout(own[-1] if own else numbers[-1], numbers[-1], device, _own_arguments(root, words))


def require(root: Root) -> Layout:
    """As `find`. Raises OtherLayout where there is none."""
    found = find(root)
    if found is None:
        raise OtherLayout(
            "this machine was not installed by kos-install, so it has no second system to go back to: "
            "update its packages with apt"
        )
    return found


def _device(root: Root, place: str = "/") -> str | None:
    """What is mounted on `place` where that is a btrfs."""
    for line in (files.read(root.join(MOUNTS)) or b"").decode().splitlines():
        words = line.split()
        kind, source = words[words.index("-") + 1 : words.index("-") + 3]
        if words[4] == place and kind == "btrfs":
            return source
    return None


def device_of(place: str) -> str:
    """The device of the btrfs that is mounted on `place`. Raises OtherLayout."""
    found = _device(Root(), place)
    if found is None:
        raise OtherLayout(f"no btrfs is mounted on {place}: this machine was not laid out by kos-install")
    return found


def _own_arguments(root: Root, words: Sequence[str]) -> list[str]:
    kept = (files.read(root.join(ARGUMENTS)) or b"").decode().split()
    return [word for word in kept or words if not word.startswith(_LOADERS) and not _SLOT.match(word)]


def arguments_for(arguments: Sequence[str], number: int) -> list[str]:
    """Kernel arguments for a root subvolume `number` that is on trial: whatever stops it, it restarts."""
    subvolume = "subvol=" + system_layout.ROOT_SLOT.format(number=number)
    found = [_ROOT.sub(subvolume, word) for word in arguments]
    keys = {word.partition("=")[0] for word in found}
    return [*found, *(word for word in RESTARTING if word.partition("=")[0] not in keys)]


def apart() -> None:
    """Give this process mounts of its own, so that whatever it mounts ends with it, killed or not. Raises NodeError."""
    if sys.version_info < (3, 12):
        raise OtherLayout("the system's Python is older than 3.12: this is not Debian 13")
    os.unshare(os.CLONE_NEWNS)
    system.run(["mount", "--make-rprivate", "/"])


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold what is said about systems on this machine: one run after the other, however long one takes."""
    os.makedirs(os.path.dirname(LOCK), exist_ok=True)
    with open(LOCK, "w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def mount_top(layout: Layout) -> str:
    """Where all subvolumes of the disk lie, the running one among them. Raises CommandFailed."""
    if not os.path.ismount(TOP):
        os.makedirs(TOP, mode=0o700, exist_ok=True)
        system.run(["mount", "-t", "btrfs", "-o", "subvolid=5", layout.device, TOP])
    return TOP


def esps() -> list[str]:
    """Every EFI system partition that can be reached, the first disk's first. Raises OtherLayout where none can."""
    found = []
    for place, device in firmware(Root()).items():
        own = UNMOUNTED + place
        if not os.path.ismount(place) and not os.path.ismount(own) and os.path.exists(device):
            os.makedirs(own, mode=0o700, exist_ok=True)
            system.run(["mount", "-t", "vfat", "-o", "umask=0077", device, own])
        found += [one for one in (place, own) if os.path.ismount(one)][:1]
    if not found:
        raise OtherLayout(f"no EFI system partition is mounted at {system_layout.ESP_AT}: mount it, then run again")
    return found


def firmware(root: Root) -> dict[str, str]:
    """Where each EFI system partition belongs, and its device, as /etc/fstab has it.

    Not by its label: it may be another system's, and a medium that is plugged in has one of the same label.
    """
    lines = (files.read(root.join(FSTAB)) or b"").decode().splitlines()
    rows = {row[1]: row[0] for line in lines if len(row := line.split()) > 1 and not line.startswith("#")}
    places = (system_layout.ESP_AT, system_layout.ESP_AT + system_layout.SECOND)
    return {place: _named(rows[place]) for place in places if place in rows}


def _named(what: str) -> str:
    """The device that fstab(5) calls UUID=… or the like; any other is a path."""
    tag, _equals, value = what.partition("=")
    return f"/dev/disk/by-{tag.lower()}/{value}" if value else what
