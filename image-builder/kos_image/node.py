# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a root that is written to boot by itself: it finds its own disk, grows, and takes new kernels from apt."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid5

from . import grub

# Debian's kernel packages keep these links, and those of the kernel before with .old.
KERNEL, INITRD = "vmlinuz", "initrd.img"
_OLD = ".old"
_FSTAB = """\
UUID={root} / ext4 errors=remount-ro,x-systemd.growfs 0 1
UUID={fat} {folder} vfat {options} 0 2
"""
# Where the FAT partition is mounted, and how. A Raspberry Pi's takes each new kernel. A PC's needs nobody; it is not at
# /boot/efi: upgrades of shim-signed would put GRUB's usual configuration there in the place of ours.
UEFI, PI = ("/efi", "umask=0077,noauto"), ("/boot/firmware", "umask=0077,nofail")
# systemd-repart gives the last partition all room that the disk has; systemd-growfs then gives it to the file system.
_GROW = "[Partition]\nType=root\n"
# dracut on the node, with each kernel that apt brings: for any machine, as the disk may move to another.
_DRACUT = 'hostonly="no"\nadd_drivers+=" {drivers} "\n'


def root_uuid(seed: UUID) -> UUID:
    """Of the root's file system."""
    return uuid5(seed, "root")


def partition_uuid(seed: UUID) -> UUID:
    """Of the partition that it lies on, where something must find that before it is opened."""
    return uuid5(seed, "root partition")


def luks_uuid(seed: UUID) -> UUID:
    """Of the header that its first start makes."""
    return uuid5(seed, "root encrypted")


def volume(seed: UUID) -> str:
    """The serial number of the FAT, as Linux writes it."""
    number = seed.hex[:8].upper()
    return f"{number[:4]}-{number[4:]}"


def files(seed: UUID, initrd: Path, version: str, drivers: Sequence[str], fat: tuple[str, str], folder: Path) -> None:
    """Write what lies over the root into an empty folder; `version` is the kernel's, `fat` UEFI or PI. Raises OSError.

    The initrd is the one of the build until apt brings a kernel: then dracut makes one, on the node, with `drivers`.
    """
    image = folder / "boot" / f"{INITRD}-{version}"
    for made in (image.parent, folder / fat[0].lstrip("/")):
        made.mkdir(exist_ok=True)
    shutil.copyfile(initrd, image)
    for link in (INITRD, INITRD + _OLD):
        (folder / link).symlink_to(f"boot/{image.name}")
    table = _FSTAB.format(root=root_uuid(seed), fat=volume(seed), folder=fat[0], options=fat[1])
    _write(folder / "etc/fstab", table)
    _write(folder / "usr/lib/repart.d/50-root.conf", _GROW)
    _write(folder / "etc/dracut.conf.d/50-kos.conf", _DRACUT.format(drivers=" ".join(drivers)))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def menu(title: str, arguments: Sequence[str], timeout: int, seed: UUID) -> str:
    """GRUB's configuration: the newest kernel, and the one before for whoever holds a key."""
    line = (f"root=UUID={root_uuid(seed)}", "ro", *arguments)
    entries = [
        grub.Entry(f"{title}{name}", f"/{KERNEL}{suffix}", f"/{INITRD}{suffix}", line)
        for name, suffix in (("", ""), (", the kernel before", _OLD))
    ]
    return grub.configuration(entries, timeout, str(root_uuid(seed)))
