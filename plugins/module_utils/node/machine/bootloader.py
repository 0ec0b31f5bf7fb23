# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The boot loader on an EFI system partition, and GRUB's part for a BIOS: staged first, startable last.

With stock keys: shim, which firmware trusts, starts Debian's signed systemd-boot, which it expects under GRUB's name.
With own keys: systemd-boot itself, signed; the files from which it enrols the keys lie in loader/keys/auto.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping

from .. import system
from . import fatfiles, grubstate, uki
from .uki import Key

_SHIM = "/usr/lib/shim"
LOADER_CONF = "loader/loader.conf"
ENROLMENT = "loader/keys/auto"
TIMEOUT = 3
# Not kos-*: never what boots by itself.
OTHER = "loader/entries/other-kos-{name}.conf"
# What systemd-boot finds by itself (bootctl(1): Windows, EFI/BOOT), and itself.
_FOUND = ("boot", "kos", "linux", "microsoft", "systemd")
# Whatever else leads to another system, the first that a folder has: as they are called by shim, GRUB and rEFInd.
_LOADERS = ("shim{name}.efi", "shim.efi", "grub{name}.efi", "refind_{name}.efi")
# Of a folder, in a line of an entry.
_TELLABLE = re.compile(r"[\w.+-][\w .+-]*")
# A BIOS reads these before there is a configuration.
_GRUB_SETUP = "/usr/lib/grub/i386-pc/grub-bios-setup"
_GRUB_MODULES = "part_gpt fat normal linux loadenv test echo serial terminal configfile reboot"


def folder(shared: bool) -> str:
    """Where the loader lies: where firmware looks by itself, or a folder of its own that an NVRAM entry names."""
    return "EFI/kos" if shared else "EFI/BOOT"


def first(shared: bool) -> str:
    """The program that firmware starts, below the ESP."""
    return f"{folder(shared)}/{'kos' if shared else 'BOOT'}{uki.suffix().upper()}.EFI"


def install_loader(
    esp: str, key: Key | None = None, enrolment: Mapping[str, str] | None = None, shared: bool = False
) -> None:
    """Stage the loader: everything is there, and firmware starts none of it. Raises NodeError, OSError.

    `key` signs it; without one it is Debian's. `enrolment`: PK, KEK, db and the paths of their .auth files.
    """
    name = uki.suffix()
    if shared and os.path.exists(os.path.join(esp, LOADER_CONF)):
        raise fatfiles.NotOnFat(
            f"{esp}/{LOADER_CONF} belongs to another system, whose choices kOS's would be: install to a whole disk, "
            "or remove the other boot loader first"
        )
    if key is None:
        sources = {
            first(shared): f"{_SHIM}/shim{name}.efi.signed",
            f"{folder(shared)}/grub{name}.efi": f"{uki.STUBS}/systemd-boot{name}.efi.signed",
            f"{folder(shared)}/mm{name}.efi": f"{_SHIM}/mm{name}.efi.signed",
        }
        for target, source in sources.items():
            fatfiles.copy(source, os.path.join(esp, target), masked=target == first(shared))
    else:
        with tempfile.TemporaryDirectory() as work:
            signed = os.path.join(work, "signed.efi")
            uki.sign(f"{uki.STUBS}/systemd-boot{name}.efi", key, signed)
            fatfiles.copy(signed, os.path.join(esp, first(shared)), masked=True)
    if shared:
        _offer_others(esp)
    for variable, source in (enrolment or {}).items():
        fatfiles.copy(source, os.path.join(esp, ENROLMENT, f"{variable}.auth"))
    fatfiles.write(os.path.join(esp, LOADER_CONF), configuration(bool(enrolment)).encode())


def _offer_others(esp: str) -> None:
    """Let the boot menu have the other systems on a shared ESP, too: firmware starts kOS's first."""
    for folder, loader in _others(esp):
        text = f"efi /EFI/{folder}/{loader}\ntitle {folder}\nsort-key other-{folder}\n"
        fatfiles.write(os.path.join(esp, OTHER.format(name=folder.lower())), text.encode())


def _others(esp: str) -> Iterator[tuple[str, str]]:
    """Folders of other systems, and the program in each that starts it. FAT does not tell upper case from lower."""
    wanted = [loader.format(name=uki.suffix()) for loader in _LOADERS]
    for folder in sorted(os.listdir(os.path.join(esp, "EFI"))):
        path = os.path.join(esp, "EFI", folder)
        if folder.lower() in _FOUND or not _TELLABLE.fullmatch(folder) or not os.path.isdir(path):
            continue
        there = {name.lower(): name for name in os.listdir(path)}
        found = next((there[name] for name in wanted if name in there), None)
        if found:
            yield folder, found


def configuration(enrols: bool = False) -> str:
    """The text of loader.conf; with `enrols`, own keys go into firmware that waits for some (setup mode)."""
    # Slots are sorted before it is asked which matches: highest first, those without tries left last.
    lines = [f"timeout {TIMEOUT}", "default kos-*", "editor no", "auto-entries yes"]
    return "\n".join((*lines, f"secure-boot-enroll {'force' if enrols else 'off'}", ""))


def publish_loader(esp: str, shared: bool = False) -> None:
    """Let firmware start what `install_loader` staged. Raises OSError."""
    fatfiles.unmask(os.path.join(esp, first(shared)))


def install_grub(esp: str, disk: str) -> None:
    """Stage GRUB for a BIOS on the ESP and in the partition kos-bios of `disk`; the disk's first sector comes last.

    Raises CommandFailed, OSError.
    """
    where = [f"--boot-directory={esp}", "--target=i386-pc", "--no-floppy", f"--modules={_GRUB_MODULES}"]
    system.run(["grub-install", *where, "--no-bootsector", disk])
    fatfiles.write(os.path.join(esp, grubstate.CONFIGURATION), grubstate.configuration().encode())
    grubstate.write(esp, grubstate.read(esp))


def publish_grub(esp: str, disk: str) -> None:
    """Let a BIOS start what `install_grub` staged: the disk's first sector and GRUB's core are written.

    Raises CommandFailed.
    """
    system.run([_GRUB_SETUP, f"--directory={esp}/{grubstate.FOLDER}/i386-pc", disk])
