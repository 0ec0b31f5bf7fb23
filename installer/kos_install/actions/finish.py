# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make it bootable, when all of it has been proved: the entry first, then the loader, then the firmware's own list."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError, Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import bootloader, fatfiles, recovery, slots

from ..errors import ApplyFailed
from ..storage.actions import Boot, Finish, Table
from . import boot, mount
from .boot import Place
from .context import Context
from .runner import run

_EFIVARS = Path("/sys/firmware/efi/efivars")
_LABEL = "kOS"
_LISTED = re.compile(r"^Boot([0-9A-F]{4})\*? +(.*?)\t.*?GPT,([0-9a-fA-F-]{36})", re.MULTILINE)


def perform(context: Context, _action: Finish) -> None:
    """Publish what was staged. Raises ApplyFailed, OSError."""
    root, wanted = Root(str(context.target)), _boot(context)
    # From the next line on it may start: nothing of it may still be on its way to the disk.
    mount.sync(context.target, context.log)
    try:
        for place in boot.places(root, wanted):
            slots.publish(place.path, boot.FIRST)
            recovery.offer(place.path, boot.FIRST)
        for place in boot.places(root, wanted):
            if wanted.loader == "grub":
                bootloader.publish_grub(place.path, boot.disk_of(place.device))
            else:
                bootloader.publish_loader(place.path, wanted.shared_esp)
    except NodeError as error:
        raise ApplyFailed(f"the node cannot be made bootable: {error}") from error
    mount.sync(context.target, context.log)
    if wanted.loader != "grub":
        _enter(context, root, wanted)


def stands(context: Context, _action: Finish) -> bool:
    """Whether every partition of the firmware's has its entry and a loader that starts."""
    root, wanted = Root(str(context.target)), _boot(context)
    return all(_published(place, wanted) for place in boot.places(root, wanted))


def _published(place: Place, wanted: Boot) -> bool:
    good = any(slot.number == boot.FIRST and slot.good for slot in slots.listing(place.path))
    if wanted.loader == "grub":
        with open(boot.disk_of(place.device), "rb") as disk:
            return good and b"GRUB" in disk.read(512)
    return good and not fatfiles.masked(str(boot.loader_of(place, wanted)))


def _boot(context: Context) -> Boot:
    return next(one for one in context.plan.actions if isinstance(one, Boot))


def _enter(context: Context, root: Root, wanted: Boot) -> None:
    """Enter it in the firmware's list; a whole disk starts without, beside another system nothing else leads here."""
    if not _EFIVARS.is_dir() or not any(_EFIVARS.iterdir()):
        if wanted.beside:
            raise ApplyFailed("the firmware's list cannot be written: start the medium by UEFI, then resume")
        return
    ours = _ours(context)
    for number, place in reversed(list(enumerate(boot.places(root, wanted)))):
        label = f"{_LABEL}{' (second disk)' if number else ''}"
        try:
            _enter_one(place, label, bootloader.first(wanted.shared_esp), ours)
        except ApplyFailed as error:
            if wanted.beside:
                raise
            # Some firmware refuses; a whole disk has its loader where any looks.
            context.log(f"the firmware's list stays as it is: {error}")


def _ours(context: Context) -> set[str]:
    """UUIDs of the partitions that this plan's wiped disks had: what leads there leads nowhere now.

    A partition that is not seen may be one of a disk that is unplugged.
    """
    tables = [one for one in context.plan.actions if isinstance(one, Table)]
    # The same answers make the same UUIDs again: those lead somewhere.
    made = {part.uuid.lower() for one in tables for part in one.make}
    wiped = [one.disk for one in tables if one.wipe]
    serials, paths = {one.serial for one in wiped} - {""}, {one.path for one in wiped if not one.serial}
    disks = [one for one in context.machine.disks if one.serial in serials or one.path in paths]
    return {part.uuid.lower() for disk in disks for part in disk.partitions} - made


def _enter_one(place: Place, label: str, loader: str, ours: Collection[str]) -> None:
    partition = Path(place.device).resolve()
    number = Path("/sys/class/block", partition.name, "partition").read_text(encoding="ascii").strip()
    own = place.device.rpartition("/")[2].lower()
    for entry, name, uuid in _LISTED.findall(run(["efibootmgr"])):
        if name.startswith(_LABEL) and uuid.lower() in {own, *ours}:
            run(["efibootmgr", "--quiet", "--delete-bootnum", "--bootnum", entry])
    path = "\\" + loader.replace("/", "\\")
    argv = ["efibootmgr", "--quiet", "--create", "--disk", boot.disk_of(place.device), "--part", number]
    run([*argv, "--label", label, "--loader", path])
