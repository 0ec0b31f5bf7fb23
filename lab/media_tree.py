# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trees with Debian 13's QEMU and firmware that media are booted in: one an architecture, made when asked for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..plugins.plugin_utils.apt import AptConfiguration
from . import cache, qemu
from .cache import Recipe, Say, Workshop
from .command import run
from .identity import Lab
from .medium import AMD64, ARM64

_SHARED = ("mtools", "python3-virt-firmware", "qemu-utils", "swtpm")
_PACKAGES = {
    AMD64: (*_SHARED, "ovmf", "qemu-system-x86"),
    ARM64: (*_SHARED, "qemu-efi-aarch64", "qemu-system-arm"),
}
TRIED_ON_KVM = AMD64
_SCRIPT = Path(__file__).with_name("boot-medium.sh")


def recipe(architecture: str) -> Recipe:
    """What the tree for media of an architecture is made of."""
    return Recipe(f"media-{architecture}", 1, "essential", _PACKAGES[architecture])


def ensure(lab: Lab, architecture: str, apt: AptConfiguration, say: Say) -> Path:
    """The cached folder with the tree for media of an architecture, made now if need be. Raises LabError."""
    wanted = recipe(architecture)
    announcement = f"making the tree that {architecture} media are booted in, once (about half a minute)"
    return cache.ensure(lab, wanted, apt, functools.partial(_make, wanted), announcement, say)


def _make(wanted: Recipe, workshop: Workshop) -> None:
    tools = workshop.folder / qemu.TREE
    workshop.debootstrap(wanted.variant, wanted.packages, tools)
    for seen in (qemu.IMAGE, qemu.DISK):
        (tools / seen.lstrip("/")).mkdir()
    for firmware in tools.glob("usr/share/AAVMF/*.fd"):
        # 64 MiB each, next to all of it zeros.
        run(["fallocate", "--dig-holes", str(firmware)])


def command(image: Path, folder: Path, files: Mapping[str, Path], program: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs a program of the tree, which sees a folder and some files; it dies with its parent."""
    named = [f"{name}={path}" for name, path in files.items()]
    private = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "slave", "sh", str(_SCRIPT)]
    return [*private, str(image / qemu.TREE), str(folder), *named, "--", program, *argv]
