# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Raspberry Pi's own firmware would do, which QEMU does not have: find kernel, initrd and command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from . import machines
from .command import run
from .errors import UsageError
from .medium import Medium

# QEMU has no Pi 4; a Pi 3's tree is on the card because Debian's kernel brings it along.
_TREE = "bcm2837-rpi-3-b.dtb"
_SERIAL = "console=ttyS1,115200"

Line = Callable[[str, list[str]], list[str]]


def unpack(medium: Medium, folder: Path, line: Line) -> str:
    """Copy kernel, initrd and device tree into `folder`, and give the kernel's command line. Raises UsageError."""
    for name in ("config.txt", "cmdline.txt", _TREE):
        _copy(medium, line, name, name)
    kernel, initrd = named(Path(folder, "config.txt").read_text())
    for name, copy in ((kernel, "kernel"), (initrd, "initrd")):
        _copy(medium, line, name, copy)
    (folder / _TREE).rename(folder / "dtb")
    return arguments(Path(folder, "cmdline.txt").read_text())


def _copy(medium: Medium, line: Line, name: str, copy: str) -> None:
    source = ["-n", "-i", f"{machines.MEDIUM}@@{medium.card}", f"::{name}", f"{machines.RUN}/{copy}"]
    run(line("mcopy", source))


def named(config: str) -> tuple[str, str]:
    """The kernel and the initrd that config.txt names. Raises UsageError."""
    kernel = re.search(r"^\s*kernel\s*=\s*(\S+)", config, re.MULTILINE)
    initrd = re.search(r"^\s*initramfs\s+(\S+)", config, re.MULTILINE)
    if not kernel or not initrd:
        raise UsageError("config.txt on this card names no kernel or no initramfs")
    return kernel[1], initrd[1]


def arguments(cmdline: str) -> str:
    """The kernel's command line, whose last console is the serial port that QEMU shows."""
    words = [
        word for word in cmdline.split() if not word.startswith(("console=ttyS", "console=serial", "console=ttyAMA"))
    ]
    return " ".join([*words, _SERIAL])
