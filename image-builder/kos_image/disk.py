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

from .errors import ImageError
from .grub import BIOS_BOOT
from .tools import Tools

MANIFEST = "kos-manifest"
BIOS = "bios"  # systemd has no word for GRUB's partition
_ARCHITECTURES = {"amd64": "x86-64", "arm64": "arm64"}


@dataclass(frozen=True)
class Partition:
    """One partition of a medium.

    `type` is a word of systemd-repart (`esp`, `root`, `root-verity`, `linux-generic`) or `bios`. `source` names its
    content among those given to `assemble`; without one it is zeros. `size` is in bytes; without one it is the
    content's.
    """

    label: str
    type: str
    source: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Content:
    """The file that a partition is a copy of; `uuid` where the partition must have a certain one."""

    path: Path
    uuid: UUID | None = None


def seed(*names: str) -> UUID:
    """What all UUIDs of a medium come from, of what names it: profile, output, architecture."""
    return uuid5(NAMESPACE_URL, "/".join(("kos-media", *names)))


def assemble(
    tools: Tools,
    layout: Sequence[Partition],
    contents: Mapping[str, Content],
    origin: UUID,
    architecture: str,
    target: Path,
) -> None:
    """Write the disk image; `origin` is its seed. Raises ImageError."""
    target.unlink(missing_ok=True)
    folders = {name: content.path.parent for name, content in contents.items()}
    with tempfile.TemporaryDirectory() as work:
        for number, part in enumerate(layout, 1):
            (Path(work) / f"{number:02}.conf").write_text(definition(part, contents))
        tools.run(
            [
                *("systemd-repart", "--offline=yes", "--empty=create", "--size=auto", "--dry-run=no", "--no-pager"),
                *(f"--seed={origin}", f"--architecture={_ARCHITECTURES[architecture]}"),
                *("--definitions=/build/definitions", f"/build/out/{target.name}"),
            ],
            {"definitions": Path(work), "out": target.parent, **folders},
            {},
        )


def definition(part: Partition, contents: Mapping[str, Content]) -> str:
    """What systemd-repart is told of one partition. Raises ImageError where its content is missing."""
    lines = ["[Partition]", f"Type={BIOS_BOOT if part.type == BIOS else part.type}", f"Label={part.label}"]
    if part.source:
        content = contents.get(part.source)
        if content is None:
            raise ImageError(f"partition {part.label} is made of '{part.source}', which this build does not make")
        lines.append(f"CopyBlocks=/build/{part.source}/{content.path.name}")
        if content.uuid:
            lines.append(f"UUID={content.uuid}")
    if part.size:
        lines += [f"SizeMinBytes={part.size}", f"SizeMaxBytes={part.size}"]
    return "\n".join((*lines, ""))
