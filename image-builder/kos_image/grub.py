# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB: one configuration for UEFI and BIOS, and its part that a BIOS starts, put into an image without a mount."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils import partition_table as table

from .errors import ImageError
from .toolbox import Toolbox

BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"  # type of the partition where GRUB's core lies
CONFIGURATION = "EFI/debian/grub.cfg"  # where Debian's signed GRUB looks for it, on the partition it came from
_MODULES = (
    *("biosdisk", "part_gpt", "fat", "ext2", "search", "search_fs_uuid", "configfile", "normal", "linux", "echo"),
    *("test", "serial", "terminal", "all_video", "gzio", "reboot", "halt", "sleep", "true"),
)
_CORE, _BOOT = "core.img", "boot.img"

# Places in GRUB's images (grub-core/boot/i386/pc/boot.S and diskboot.S, include/grub/offsets.h): the sector of the
# core in boot.img; the jump there that is made no-ops for disks whose number the BIOS tells right; the list of sectors
# at the end of the core's first one. The first 440 bytes of a disk are the boot loader's.
_BOOT_CODE, _KERNEL_SECTOR, _DRIVE_CHECK, _BLOCKLIST = 440, 0x5C, 0x66, 0x1F4
_NO_OPERATIONS = b"\x90\x90"


@dataclass(frozen=True)
class Entry:
    """One line of the menu: kernel and initrd as paths that GRUB reads, and the kernel's arguments."""

    title: str
    kernel: str
    initrd: str
    arguments: Sequence[str]


def configuration(entries: Sequence[Entry], timeout: int, root: str | None = None) -> str:
    """The text of grub.cfg. `root` is the UUID of the file system with kernel and initrd, where it is another one.

    `timeout` is in seconds; 0 starts the first entry unless a key is held. Raises ImageError.
    """
    lines = [
        f"set timeout={timeout}",
        # UEFI's own console is on the serial line already where the firmware has one.
        'if [ "$grub_platform" = pc ]; then',
        "  if serial --unit=0 --speed=115200; then",
        "    terminal_input console serial",
        "    terminal_output console serial",
        "  fi",
        "fi",
    ]
    if root:
        lines.append(f"search --no-floppy --fs-uuid --set=root {root}")
    for entry in entries:
        lines += [
            f"menuentry {_quoted(entry.title)} {{",
            f"  linux {entry.kernel} {' '.join(map(_quoted, entry.arguments))}",
            f"  initrd {entry.initrd}",
            "}",
        ]
    return "\n".join((*lines, ""))


def _quoted(word: str) -> str:
    if "'" in word or "\n" in word:
        raise ImageError(f"GRUB cannot be told {word!r}: leave the quotation mark or line break out")
    return f"'{word}'"


def core(toolbox: Toolbox, esp: int, folder: Path) -> None:
    """Make GRUB's two images for a BIOS in `folder`; its configuration is on partition number `esp` of the same disk.

    Raises ImageError.
    """
    image = ["grub-mkimage", "-O", "i386-pc", "-p", f"(,gpt{esp})/{Path(CONFIGURATION).parent}"]
    toolbox.run([*image, "-o", f"/build/out/{_CORE}", *_MODULES], {"out": folder})
    toolbox.run(["cp", f"/usr/lib/grub/i386-pc/{_BOOT}", f"/build/out/{_BOOT}"], {"out": folder})


def install(folder: Path, disk: Path) -> None:
    """Write the images of `core` into a disk image that has a partition for them. Raises ImageError, OSError."""
    with disk.open("rb") as stream:
        partitions = table.read(stream.read(table.HEAD)).partitions
    place = next((one for one in partitions if one.type == BIOS_BOOT), None)
    if place is None:
        raise ImageError("a medium that a BIOS starts needs a partition of type bios; put one into its definition")
    image = placed((folder / _CORE).read_bytes(), place)
    start = started((folder / _BOOT).read_bytes(), place)
    with disk.open("r+b") as stream:
        stream.write(start)
        stream.seek(place.start)
        stream.write(image)


def started(boot: bytes, place: table.Partition) -> bytes:
    """The code for the first sector of a disk whose core lies at `place`."""
    code = bytearray(boot[:_BOOT_CODE])
    struct.pack_into("<Q", code, _KERNEL_SECTOR, place.start // table.SECTOR)
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = _NO_OPERATIONS
    return bytes(code)


def placed(image: bytes, place: table.Partition) -> bytes:
    """A core that knows at which sectors its rest lies. Raises ImageError where it does not fit."""
    padded = bytearray(image + bytes(-len(image) % table.SECTOR))
    if len(padded) > place.size:
        raise ImageError(f"GRUB's core has {len(padded)} bytes, its partition {place.size}: make that larger")
    first, sectors = place.start // table.SECTOR, len(padded) // table.SECTOR
    struct.pack_into("<QH", padded, _BLOCKLIST, first + 1, sectors - 1)
    return bytes(padded)
