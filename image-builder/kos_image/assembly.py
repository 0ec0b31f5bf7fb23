# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last steps to a medium: its boot partition, its disk, its signed manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from ansible_collections.kind.kos.plugins.plugin_utils import media
from ansible_collections.kind.kos.plugins.plugin_utils.media import About
from ansible_collections.kind.kos.plugins.plugin_utils.signing import Signer

from . import disk, esp, filesystems, node, pi
from .definition import Definition
from .disk import Content
from .esp import Kernel
from .filesystems import Verity
from .secureboot import Key
from .toolbox import Toolbox

_MENU_SECONDS = 3


@dataclass(frozen=True)
class Started:
    """What a medium starts with: the folder of the initrd's stage, and a title for menus."""

    folder: Path
    title: str

    def kernel(self, arguments: Sequence[str]) -> Kernel:
        """It with these arguments."""
        version = (self.folder / "kver").read_text().strip()
        return Kernel(self.folder / "vmlinuz", self.folder / "initrd", version, arguments, self.title)


def live_boot(
    box: Toolbox, definition: Definition, root: Path, started: Started, verity: Verity, key: Key | None, to: Path
) -> None:
    """Fill the folder `to` with the EFI system partition of a live medium. Raises ImageError.

    With a key of one's own the kernel image is signed as a whole; for a BIOS, which verifies nothing, kernel and initrd
    stand beside it.
    """
    boots = started.kernel([*definition.kernel_arguments, f"roothash={verity.roothash}"])
    if key:
        esp.own(box, root, definition.architecture, boots, _MENU_SECONDS, key, to)
    else:
        esp.stock(root, definition.architecture, to)
    if definition.boot.bios or not key:
        esp.kernel(boots, _MENU_SECONDS, to)


def node_files(definition: Definition, boots: Kernel, seed: UUID, to: Path) -> None:
    """Fill the folder `to` with what lies over the root of a node's disk so that it boots by itself. Raises OSError."""
    fat = node.PI if definition.boot.pi else node.UEFI
    node.files(seed, boots.initrd, boots.version, definition.initrd.drivers, fat, to)
    if definition.boot.pi:
        pi.settings(pi.root(seed, definition.encrypted), definition.kernel_arguments, to)


def node_boot(definition: Definition, root: Path, boots: Kernel, seed: UUID, to: Path) -> None:
    """Fill the folder `to` with what the firmware of a node's machine reads. Raises ImageError."""
    if definition.boot.pi:
        pi.firmware(root, boots, pi.root(seed, definition.encrypted), to)
        return
    esp.stock(root, definition.architecture, to)
    esp.menu(node.menu(boots.title, definition.kernel_arguments, _MENU_SECONDS, seed), to)


def write_disk(
    box: Toolbox, definition: Definition, boot: Path, contents: Mapping[str, Content], seed: UUID, target: Path
) -> None:
    """Write the disk image of a medium; `boot` is the folder of what its firmware reads. Raises ImageError, OSError."""
    first = next(one for one in definition.partitions if one.content in ("esp", "firmware"))
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        fat = Path(name) / "boot.fat"
        filesystems.fat(box, boot, first.label, seed, fat, first.size_mb)
        every = {**contents, first.content: Content(fat)}
        disk.assemble(box, definition.partitions, every, seed, definition.architecture, target)


def seal(image: Path, about: About, signer: Signer, carried: bool) -> str:
    """Describe an image in a signed manifest beside it, and on it where it is never written to; the Merkle root.

    Raises OSError, NoManifest, SigningFailed.
    """
    sealed = media.describe(image, about, signer)
    if carried:
        media.embed(image, sealed)
    media.write_beside(image, sealed)
    return sealed.identity
