# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel, initrd and boot loader onto every partition of the firmware's: all but the bytes that would start them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node import files
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError, Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import (
    bootloader,
    fatfiles,
    grubstate,
    layout,
    secureboot,
    slots,
    system_layout,
)
from ansible_collections.kind.kos.plugins.module_utils.node.machine.slots import Entry
from ansible_collections.kind.kos.plugins.module_utils.node.machine.uki import Key

from ..errors import ApplyFailed
from ..storage.actions import Boot
from . import initrds, mounts, pristine, target
from .context import Context
from .target import File

FIRST = 1
ARGUMENTS = "/etc/kernel/cmdline"
_CMDLINE = Path("/proc/cmdline")
_KERNEL = re.compile(r"vmlinuz-(.+)")
# What the medium was started with and the node needs too: where to talk, and not to wait for ever after a panic.
_KEPT = ("console=", "panic=")
_TERMINALS = Path("/sys/class/tty")


@dataclass(frozen=True)
class Place:
    """A partition of the firmware's: what it is called, and where it is mounted here."""

    device: str
    path: str


def perform(context: Context, action: Boot) -> None:
    """Stage all of it. Raises ApplyFailed, OSError."""
    root = Root(str(context.target))
    try:
        target.lay(root, [_arguments_file(context)])
        key = secureboot.make_keys(root, f"kOS {context.answers.hostname}") if action.uki else None
        entry = entry_of(context, root)
        for place in places(root, action):
            _stage_entry(place, entry, action, key)
            if action.loader == "grub":
                bootloader.install_grub(place.path, disk_of(place.device))
            else:
                enrolment = secureboot.enrolment(root) if action.uki else None
                _forget_own(place, action)
                bootloader.install_loader(place.path, key, enrolment, action.shared_esp)
        pristine.keep(context)
    except NodeError as error:
        raise ApplyFailed(f"what starts the node cannot be put on its disk: {error}") from error


def stands(context: Context, action: Boot) -> bool:
    """Whether each partition has the entry and a loader, startable or not yet, and the node knows its arguments."""
    root = Root(str(context.target))
    return (
        target.lies(root, [_arguments_file(context)])
        and all(_whole(place, action) for place in places(root, action))
        and pristine.are_kept(context)
    )


def places(root: Root, action: Boot) -> Iterator[Place]:
    """Where the partitions of the firmware's are, in the order of the plan."""
    for number, device in enumerate(action.esps):
        yield Place(device, root.join(system_layout.ESP_AT + ("", system_layout.SECOND)[number]))


def kind_of(action: Boot) -> str:
    """Of boot entries, in the words of `slots`."""
    return "grub" if action.loader == "grub" else "uki" if action.uki else "entries"


def loader_of(place: Place, action: Boot) -> Path:
    """The file that the firmware, or GRUB's core, looks for."""
    name = grubstate.CONFIGURATION if action.loader == "grub" else bootloader.first(action.shared_esp)
    return Path(place.path) / name


def entry_of(context: Context, root: Root) -> Entry:
    """The first boot entry: it is proved when it is made, as there is no other to go back to. Raises ApplyFailed."""
    kernel, version = _kernel(context.target)
    title = f"kOS, system {FIRST} ({version})"
    return Entry(FIRST, title, str(kernel), initrds.make(context, root, version), arguments(context), tries=None)


def arguments(context: Context) -> list[str]:
    """All that the node's kernel is told."""
    found = mounts.arguments(context.plan, FIRST, tpm2=context.answers.encryption.tpm2 is not None) + _kept()
    # As later entries have it: whatever stops a start, it is tried again, and nobody gets a shell instead.
    keys = {word.partition("=")[0] for word in found}
    found += [word for word in layout.RESTARTING if word.partition("=")[0] not in keys]
    return found


def _kept() -> list[str]:
    """What the medium was told, and the node is too; of its consoles only those that this machine has."""
    words = dict.fromkeys(_CMDLINE.read_text(encoding="utf-8").split())
    return [word for word in words if word.startswith(_KEPT) and _is_there(word)]


def _is_there(word: str) -> bool:
    key, _, value = word.partition("=")
    port = _TERMINALS / value.partition(",")[0]
    # The kernel has four names of serial ports on any PC; 0, PORT_UNKNOWN in linux/serial.h, is none.
    kind = port / "type"
    return key != "console" or (port.exists() and not (kind.exists() and kind.read_text(encoding="ascii") == "0\n"))


def disk_of(partition: str) -> str:
    """The disk that a partition is on, as in /dev. Raises ApplyFailed."""
    name = os.path.basename(os.path.realpath(partition))
    disk = Path("/sys/class/block", name).resolve().parent.name
    if not Path("/sys/class/block", name, "partition").exists():
        raise ApplyFailed(f"{partition} is not there: is the disk still plugged in?")
    return f"/dev/{disk}"


def _arguments_file(context: Context) -> File:
    # What updates of the system make the next entry from.
    return File(ARGUMENTS, " ".join(arguments(context)) + "\n")


def _kernel(folder: Path) -> tuple[Path, str]:
    found = [(path, match[1]) for path in (folder / "boot").iterdir() if (match := _KERNEL.fullmatch(path.name))]
    if len(found) != 1:
        raise ApplyFailed(f"the system image has {len(found)} kernels, not one: take another medium")
    return found[0]


def _stage_entry(place: Place, entry: Entry, action: Boot, key: Key | None) -> None:
    there = [slot for slot in slots.listing(place.path) if slot.number == entry.number and not slot.staged]
    if not there:
        slots.stage(place.path, entry, kind_of(action), key)


def _forget_own(place: Place, action: Boot) -> None:
    """A loader's configuration that we wrote before we were interrupted is nobody else's."""
    path = os.path.join(place.path, bootloader.LOADER_CONF)
    if files.read(path) == bootloader.configuration(action.uki).encode():
        fatfiles.remove(path)


def _whole(place: Place, action: Boot) -> bool:
    entries = [slot for slot in slots.listing(place.path) if slot.number == FIRST and slot.kind == kind_of(action)]
    loader = loader_of(place, action)
    return len(entries) == 1 and loader.is_file() and loader.stat().st_size > 0
