# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an install needs to come to its end, looked for before the first byte is written."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node.machine import bootloader, slots, system_layout

from .actions import filesystems, unpack
from .actions.runner import PATH
from .errors import ApplyFailed, InstallError
from .storage.actions import Boot, Plan

INITRD = Path(system_layout.INSTALLED, "initrd")
# The programs that a kind of action starts on the medium itself.
_TOOLS = {
    "release": ("lsblk", "udevadm", "umount", "setpriv"),
    "wipe": ("wipefs", "blockdev"),
    "table": ("sfdisk", "partx"),
    "luks": ("cryptsetup",),
    "btrfs": ("mkfs.btrfs", "btrfs"),
    "fat": ("mkfs.vfat",),
    "mount": ("mount", "findmnt"),
    "unpack": ("unsquashfs",),
}
_KERNELS = "vmlinuz-*"
_LOADER_ROOM = 8 << 20  # bytes: shim, systemd-boot and their configuration take 2 MiB
_ROOTHASH = re.compile(r"(?:^|\s)roothash=([0-9a-f]{64})(?:\s|$)")


def check(plan: Plan) -> None:
    """Nothing, where this system can carry out the plan to its end. Raises ApplyFailed: nothing was written then."""
    kinds = {action.kind for action in plan.actions}
    lacking = [tool for kind in sorted(kinds) for tool in _TOOLS.get(kind, ()) if not shutil.which(tool, path=PATH)]
    if lacking:
        raise ApplyFailed(_off_medium(f"it has no {', '.join(lacking)}"))
    if "unpack" in kinds:
        try:
            unpack.image_size(unpack.IMAGE)
        except (OSError, ApplyFailed):
            raise ApplyFailed(_off_medium(f"{unpack.IMAGE} is no system image")) from None
    if "boot" in kinds and not INITRD.is_file():
        raise ApplyFailed(_off_medium(f"it has no {INITRD}"))


def _off_medium(why: str) -> str:
    return f"this system was not started from a medium that installs ({why}): nothing was written; start from one"


def image(cmdline: Path = Path("/proc/cmdline")) -> str:
    """What the system image is known by: the root hash that proves it; empty where it is not proved."""
    found = _ROOTHASH.search(cmdline.read_text(encoding="utf-8"))
    return found[1] if found else ""


def shared_esps(plan: Plan) -> list[str]:
    """Why another system's EFI partition cannot be shared, read on it itself; none for a plan that shares none."""
    faults: list[str] = []
    for action in plan.actions:
        if isinstance(action, Boot) and action.shared_esp:
            for device in action.esps:
                faults += _of_esp(device)
    return faults


def _of_esp(device: str) -> list[str]:
    """Read-only, which writes nothing on FAT: it has no journal."""
    try:
        with filesystems.mounted(device, "vfat", "ro,nodev,nosuid,noexec", lambda _text: None) as esp:
            return list(unshareable(esp, needed(Path("/boot"))))
    except InstallError as error:
        return [f"storage.layout: the EFI partition that would be shared cannot be read ({error}): take another disk"]


def unshareable(esp: Path, wanted: int) -> Iterator[str]:
    """Why the EFI partition that is mounted there cannot take `wanted` bytes of boot files."""
    conf = esp / bootloader.LOADER_CONF
    ours = {bootloader.configuration(enrols).encode() for enrols in (False, True)}
    if conf.exists() and conf.read_bytes() not in ours:
        yield (
            f"storage.layout: {bootloader.LOADER_CONF} on the shared EFI partition belongs to another system, whose"
            " choices kOS's would be: remove that boot loader first, or take another disk"
        )
    if any(not slot.staged for slot in slots.listing(str(esp))):
        yield (
            "storage.layout: the EFI partition that would be shared has boot entries of a kOS that is not on this disk"
            " any more: remove EFI/kos, kos and loader/entries/*kos* there, or take another disk"
        )
    room = os.statvfs(esp)
    free = room.f_bavail * room.f_frsize
    if free < wanted:
        yield (
            f"storage.layout: the EFI partition that would be shared has {free >> 20} MiB free, and kOS needs"
            f" {wanted >> 20} there: make room on it, or take another disk"
        )


def needed(boot: Path) -> int:
    """Bytes that a node has on an EFI partition: the running system and the one that an update puts beside it."""
    files = [*sorted(boot.glob(_KERNELS)), INITRD]
    return 2 * sum(path.stat().st_size for path in files if path.is_file()) + _LOADER_ROOM
