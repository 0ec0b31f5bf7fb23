# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk image out of its partitions, by systemd-repart: no loop device, no mount, the same bytes each time."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from . import grub
from .definition import Partition
from .errors import ImageError
from .toolbox import Toolbox

# A Raspberry Pi reads FAT32 from it, and other computers show it to whoever wants to change config.txt.
_BASIC_DATA = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
# systemd-repart's words for what a content is, where it has one.
_TYPES = {
    "bios": grub.BIOS_BOOT,
    "esp": "esp",
    "firmware": _BASIC_DATA,
    "root": "root",
    "verity": "root-verity",
    "data": "linux-generic",
    "manifest": "linux-generic",
}
_EMPTY = ("bios", "manifest")  # they are filled once it is known what lies where
_ARCHITECTURES = {"amd64": "x86-64", "arm64": "arm64"}


@dataclass(frozen=True)
class Content:
    """The file that a partition is a copy of; `uuid` where the partition must have a certain one."""

    path: Path
    uuid: UUID | None = None


def seed(*names: str) -> UUID:
    """What all UUIDs of a medium come from, of what names it: profile, output, architecture."""
    return uuid5(NAMESPACE_URL, "/".join(("kos-media", *names)))


def assemble(
    toolbox: Toolbox,
    layout: Sequence[Partition],
    contents: Mapping[str, Content],
    origin: UUID,
    architecture: str,
    target: Path,
) -> None:
    """Write the disk image, with GRUB where a BIOS starts it; `origin` is its seed. Raises ImageError."""
    target.unlink(missing_ok=True)
    folders = {name: content.path.parent for name, content in contents.items()}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for number, part in enumerate(layout, 1):
            (work / f"{number:02}.conf").write_text(definition(part, contents))
        toolbox.run(
            [
                *("systemd-repart", "--offline=yes", "--empty=create", "--size=auto", "--dry-run=no", "--no-pager"),
                *(f"--seed={origin}", f"--architecture={_ARCHITECTURES[architecture]}"),
                *("--definitions=/build/definitions", f"/build/out/{target.name}"),
            ],
            {"definitions": work, "out": target.parent, **folders},
        )
    kinds = [part.content for part in layout]
    if "bios" in kinds:
        _for_bios(toolbox, kinds.index("esp") + 1, target)


def _for_bios(toolbox: Toolbox, esp: int, disk: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        grub.core(toolbox, esp, Path(work))
        grub.install(Path(work), disk)


def definition(part: Partition, contents: Mapping[str, Content]) -> str:
    """What systemd-repart is told of one partition. Raises ImageError where its content is missing."""
    lines = ["[Partition]", f"Type={_TYPES[part.content]}", f"Label={part.label}"]
    content = contents.get(part.content)
    if content:
        lines.append(f"CopyBlocks=/build/{part.content}/{content.path.name}")
        if content.uuid:
            lines.append(f"UUID={content.uuid}")
    elif part.content not in _EMPTY:
        raise ImageError(f"partition {part.label} holds the {part.content}, which this build does not make")
    if part.size_mb:
        lines += [f"SizeMinBytes={part.size_mb}M", f"SizeMaxBytes={part.size_mb}M"]
    return "\n".join((*lines, ""))


def qcow2(toolbox: Toolbox, raw: Path, target: Path) -> None:
    """Write a disk image as qcow2. Raises ImageError."""
    toolbox.run(
        [
            *("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd"),
            *(f"/build/in/{raw.name}", f"/build/out/{target.name}"),
        ],
        {"in": raw.parent, "out": target.parent},
    )
