# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Raspberry Pi's firmware partition: made as Debian's raspi-firmware keeps it, so that its hook takes new kernels.

No emulator runs the firmware: `faults` looks at what it would read.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from . import node, tree
from .errors import ImageError
from .esp import Kernel

# What the boot loader in a Pi 4's own memory starts; a Pi 5 has all of it in there.
_START = ("start4.elf", "fixup4.dat")
_BOARDS = (
    *("bcm2711-rpi-4-b", "bcm2711-rpi-400", "bcm2711-rpi-cm4-io", "bcm2712-rpi-5-b"),
    *("bcm2837-rpi-3-a-plus", "bcm2837-rpi-3-b", "bcm2837-rpi-3-b-plus", "bcm2837-rpi-cm3-io3", "bcm2837-rpi-zero-2-w"),
)
_DTBS = tuple(f"{board}.dtb" for board in _BOARDS)
# As z50-raspi-firmware writes it, which writes it anew with each kernel.
_CONFIG = """\
arm_64bit=1
enable_uart=1
upstream_kernel=1

kernel={kernel}
initramfs {initrd}

{custom}"""
# A Pi 5 refuses kernels that are not its maker's unless told so.
_CUSTOM = "[pi5]\nos_check=0\n"
_CONSOLE = "console="
# Linux, Documentation/arch/arm64/booting.rst: the magic number of a kernel that is not compressed.
_MAGIC_AT, _MAGIC = 56, b"ARM\x64"


@dataclass(frozen=True)
class Root:
    """Where a card's root is found: the device, in the words of `root=`, and what else the kernel is told for that."""

    device: str
    arguments: tuple[str, ...] = ()


def root(seed: UUID, encrypted: bool) -> Root:
    """The root of the card with this seed; one that is encrypted is so from the end of its first start on.

    `kos.card` names its partition for dracut's module 90kos-card, which makes the header that `rd.luks.name` names.
    """
    if not encrypted:
        return Root(f"UUID={node.root_uuid(seed)}")
    name = "kos-root"
    # The header may appear late: whoever chooses a passphrase is not hurried. Nobody is shut out for a typing error.
    options = "rd.luks.options=discard,tries=0,x-systemd.device-timeout=0"
    told = (f"kos.card={node.partition_uuid(seed)}", f"rd.luks.name={node.luks_uuid(seed)}={name}", options)
    return Root(f"/dev/mapper/{name}", told)


def firmware(archive: Path, boots: Kernel, place: Root, folder: Path) -> None:
    """Write the partition's content into `folder`: `archive` is the root's.

    Raises ImageError where the root lacks the firmware or a board's device tree, or something else is wrong with it.
    """
    boards = f"usr/lib/linux-image-{boots.version}/broadcom"
    names = {f"usr/lib/raspi-firmware/{name}": name for name in _START}
    tree.extract(archive, {**names, **{f"{boards}/{name}": name for name in _DTBS}}, folder)
    kernel, initrd = f"vmlinuz-{boots.version}", f"initrd.img-{boots.version}"
    shutil.copyfile(boots.image, folder / kernel)
    shutil.copyfile(boots.initrd, folder / initrd)
    (folder / "config.txt").write_text(_CONFIG.format(kernel=kernel, initrd=initrd, custom=_CUSTOM))
    first, others = _split(boots.arguments)
    usual = (f"root={place.device}", "rw", "fsck.repair=yes", "net.ifnames=0", "rootwait")
    line = " ".join((*first, *usual, *others, *place.arguments))
    (folder / "cmdline.txt").write_text(f"{line}\n")
    if found := faults(folder, place):
        raise ImageError(f"the Raspberry Pi's card would not boot: {'; '.join(found)}")


def settings(place: Root, arguments: Sequence[str], folder: Path) -> None:
    """Write what lies over the root so that raspi-firmware writes the same at each upgrade. Raises OSError."""
    first, others = _split(arguments)
    consoles = " ".join(word.removeprefix(_CONSOLE) for word in first)
    defaults = folder / "etc/default"
    defaults.mkdir(parents=True)
    (defaults / "raspi-firmware").write_text(f'ROOTPART="{place.device}"\nCONSOLES="{consoles}"\nCMA=0\n')
    (defaults / "raspi-extra-cmdline").write_text(" ".join((*others, *place.arguments)) + "\n")
    (defaults / "raspi-firmware-custom").write_text(_CUSTOM)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The consoles, and the rest."""
    consoles = [word for word in arguments if word.startswith(_CONSOLE)]
    return consoles, [word for word in arguments if word not in consoles]


def faults(folder: Path, place: Root) -> list[str]:
    """What is wrong with a firmware partition's content, as sentences."""
    found = [f"{name} is missing or empty" for name in (*_START, *_DTBS) if not _there(folder / name)]
    if not (_there(folder / "config.txt") and _there(folder / "cmdline.txt")):
        return [*found, "config.txt or cmdline.txt is missing"]
    config, line = (folder / "config.txt").read_text(), (folder / "cmdline.txt").read_text()
    for key in ("kernel=", "initramfs "):
        named = re.search(rf"^{key}(\S+)$", config, re.MULTILINE)
        if not named or not _there(folder / named[1]):
            found.append(f"config.txt names no {key.strip(' =')} that is there")
        elif key == "kernel=" and not _is_kernel(folder / named[1]):
            found.append(f"{named[1]} is no kernel for arm64 that the firmware can start")
    if "arm_64bit=1" not in config.splitlines():
        found.append("config.txt does not ask for 64 bits")
    if line.count("\n") != 1 or not {f"root={place.device}", *place.arguments} <= set(line.split()):
        found.append("cmdline.txt is not one line that says where the root is")
    return found


def _there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _is_kernel(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(_MAGIC_AT)
        return stream.read(len(_MAGIC)) == _MAGIC
