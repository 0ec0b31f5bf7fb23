# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands on the EFI system partition: the files of the two chains, and what a BIOS needs of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import grub, secureboot, tree
from .secureboot import Key
from .toolbox import Toolbox

_KERNEL, _INITRD = "kos/vmlinuz", "kos/initrd"
_SYSTEMD_BOOT = "usr/lib/systemd/boot/efi"
_ENROLMENT = "loader/keys/kos"


@dataclass(frozen=True)
class Machine:
    """How an architecture is called in the names of EFI programs, and in Debian's folders of signed ones."""

    suffix: str
    grub: str

    @property
    def first(self) -> str:
        """The program that firmware starts from a medium it does not know."""
        return f"EFI/BOOT/BOOT{self.suffix.upper()}.EFI"


MACHINES = {"amd64": Machine("x64", "x86_64-efi-signed"), "arm64": Machine("aa64", "arm64-efi-signed")}


@dataclass(frozen=True)
class Kernel:
    """What boots: the files, the version as `uname -r` has it, all arguments, and what a menu calls it."""

    image: Path
    initrd: Path
    version: str
    arguments: Sequence[str]
    title: str


def stock(root: Path, architecture: str, folder: Path) -> None:
    """Debian's signed shim and GRUB, out of the root's archive: what machines with Microsoft's keys start.

    Raises ImageError.
    """
    machine = MACHINES[architecture]
    names = {
        f"usr/lib/shim/shim{machine.suffix}.efi.signed": machine.first,
        f"usr/lib/shim/mm{machine.suffix}.efi.signed": f"EFI/BOOT/mm{machine.suffix}.efi",
        f"usr/lib/grub/{machine.grub}/grub{machine.suffix}.efi.signed": f"EFI/BOOT/grub{machine.suffix}.efi",
    }
    tree.extract(root, names, folder)


def kernel(boots: Kernel, timeout: int, folder: Path) -> None:
    """Kernel, initrd and GRUB's menu on the partition itself, for GRUB on UEFI and BIOS alike. Raises ImageError."""
    (folder / _KERNEL).parent.mkdir()
    shutil.copyfile(boots.image, folder / _KERNEL)
    shutil.copyfile(boots.initrd, folder / _INITRD)
    menu(grub.configuration([grub.Entry(boots.title, f"/{_KERNEL}", f"/{_INITRD}", boots.arguments)], timeout), folder)


def menu(configuration: str, folder: Path) -> None:
    """GRUB's configuration."""
    (folder / grub.CONFIGURATION).parent.mkdir(parents=True)
    (folder / grub.CONFIGURATION).write_text(configuration)


def own(toolbox: Toolbox, root: Path, architecture: str, boots: Kernel, timeout: int, key: Key, folder: Path) -> None:
    """systemd-boot and a unified kernel image, signed: what machines that know this key start. Raises ImageError.

    Where the key is one of a set, the files to enrol it lie in loader/keys: a person chooses that in the menu.
    """
    machine = MACHINES[architecture]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        stub, loader = f"linux{machine.suffix}.efi.stub", f"systemd-boot{machine.suffix}.efi"
        wanted = {f"{_SYSTEMD_BOOT}/{stub}": "stub", f"{_SYSTEMD_BOOT}/{loader}": "loader"}
        tree.extract(root, {**wanted, "usr/lib/os-release": "os-release"}, work)
        _name(work / "os-release", boots.title)
        unified(toolbox, machine, boots, work)
        for unsigned, signed in (("loader", machine.first), ("unified", "EFI/Linux/kos.efi")):
            (folder / signed).parent.mkdir(parents=True)
            secureboot.sign(toolbox, key, work / unsigned, folder / signed)
    (folder / "loader").mkdir()
    (folder / "loader/loader.conf").write_text(f"timeout {timeout}\neditor no\nsecure-boot-enroll manual\n")
    enrolment = secureboot.enrolment(key)
    if enrolment:
        (folder / _ENROLMENT).mkdir(parents=True)
    for file in enrolment:
        shutil.copyfile(file, folder / _ENROLMENT / file.name)


def _name(release: Path, title: str) -> None:
    """systemd-boot's menu calls a kernel image what its os-release does."""
    lines = [line for line in release.read_text().splitlines() if not line.startswith("PRETTY_NAME=")]
    release.write_text("\n".join((*lines, f'PRETTY_NAME="{title}"', "")))


def unified(toolbox: Toolbox, machine: Machine, boots: Kernel, work: Path) -> None:
    """Write kernel, initrd and arguments as one EFI program, `unified`, with `stub` and `os-release` beside it."""
    (work / "arguments").write_text(" ".join(boots.arguments))
    toolbox.run(
        [
            *("ukify", "build", "--stub=/build/work/stub", f"--efi-arch={machine.suffix}"),
            *(f"--linux=/build/kernel/{boots.image.name}", f"--initrd=/build/initrd/{boots.initrd.name}"),
            *("--cmdline=@/build/work/arguments", "--os-release=@/build/work/os-release", f"--uname={boots.version}"),
            "--output=/build/work/unified",
        ],
        {"work": work, "kernel": boots.image.parent, "initrd": boots.initrd.parent},
    )
