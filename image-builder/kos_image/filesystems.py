# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems as files: squashfs with dm-verity for a live root, ext4 for one that is written to, erofs, FAT.

Each is made without a mount, and is the same whatever the build machine's file system lists first.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from . import tree
from .errors import ImageError
from .toolbox import Toolbox

BLOCK = 4096
_MIB = 1 << 20
_STEP = 64 * _MIB
# What ext4 wants besides the files: inodes of 256 bytes with their folders' entries, and a journal (64 MiB at most).
_SPARE, _INODE = 96 * _MIB, 256 + 128
# FAT32 wants 65525 clusters (33 MiB at 512 bytes each), and firmware wants FAT32.
_FAT_LEAST, _FAT_SPARE = 64 * _MIB, 8 * _MIB


@dataclass(frozen=True)
class Verity:
    """A file system that proves itself: its hash, and the partition UUIDs by which `roothash=` finds both halves."""

    roothash: str

    @property
    def data_uuid(self) -> UUID:
        """Of the partition with the data: the first half of the hash (Discoverable Partitions Specification)."""
        return UUID(self.roothash[:32])

    @property
    def hash_uuid(self) -> UUID:
        """Of the partition with the hash tree: the second half."""
        return UUID(self.roothash[-32:])


def squashfs(toolbox: Toolbox, archive: Path, target: Path, level: int) -> None:
    """Write a tree archive as squashfs, with zstd of that level. Raises ImageError."""
    # -exports: an overlay over it then keeps the inode numbers of what is copied up.
    options = f"-noappend -comp zstd -Xcompression-level {level} -quiet -no-progress -exports"
    root = f"-root-mode 0755 -root-uid 0 -root-gid 0 -default-mode 0755 -root-time {toolbox.epoch}"
    script = f'exec mksquashfs - "$1" -tar {options} {root} -processors {os.cpu_count() or 1} < "$2"'
    toolbox.run(
        ["sh", "-c", script, "sh", f"/build/out/{target.name}", f"/build/in/{archive.name}"],
        {"in": archive.parent, "out": target.parent},
    )


def verity(toolbox: Toolbox, data: Path, seed: UUID, target: Path) -> Verity:
    """Write the hash tree of a file system beside it. Raises ImageError."""
    # A salt keeps nobody from anything here; a fixed one makes the hash a function of the data.
    said = toolbox.run(
        [
            *("veritysetup", "format", f"--salt={seed.hex}", f"--uuid={seed}"),
            *(f"/build/in/{data.name}", f"/build/out/{target.name}"),
        ],
        {"in": data.parent, "out": target.parent},
    )
    found = re.search(r"^Root hash:\s+([0-9a-f]{64})$", said, re.MULTILINE)
    if not found:
        raise ImageError(f"veritysetup named no root hash: {said.strip()}")
    return Verity(found[1])


def ext4(toolbox: Toolbox, archive: Path, uuid: UUID, target: Path, room_mb: int, before_mb: int = 0) -> None:
    """Write a tree archive as ext4 with at least `room_mb` left free, behind `before_mb`. Raises ImageError."""
    content, entries = tree.size(archive, BLOCK)
    needed = int((content + entries * _INODE) * 1.05) + _SPARE + room_mb * _MIB
    size, before = -(-needed // _STEP) * _STEP, before_mb * _MIB
    with target.open("wb") as stream:
        stream.truncate(before + size)
    toolbox.run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", str(uuid), "-b", str(BLOCK), "-m", "1"),
            *("-E", f"hash_seed={uuid},root_owner=0:0,nodiscard,offset={before}", "-d", f"/build/in/{archive.name}"),
            *(f"/build/out/{target.name}", str(size // BLOCK)),
        ],
        {"in": archive.parent, "out": target.parent},
        {"E2FSPROGS_FAKE_TIME": str(toolbox.epoch)},
    )


def erofs(toolbox: Toolbox, folder: Path, uuid: UUID, target: Path) -> None:
    """Write a folder as erofs, not compressed: packages and container images are already. Raises ImageError."""
    target.unlink(missing_ok=True)
    toolbox.run(
        [
            *("mkfs.erofs", "--quiet", f"-U{uuid}", f"-T{toolbox.epoch}", "--all-root", "--ignore-mtime"),
            *(f"/build/out/{target.name}", "/build/in"),
        ],
        {"in": folder, "out": target.parent},
    )


def fat(toolbox: Toolbox, folder: Path, label: str, uuid: UUID, target: Path, size_mb: int = 0) -> None:
    """Write a folder as FAT32 of that size, or of what it needs. Raises ImageError."""
    target.unlink(missing_ok=True)
    image = f"/build/out/{target.name}"
    # One sector is 512 bytes: what firmware reads. --invariant: no time in it; it would overrule an -i before it.
    volume = ("--invariant", "-F", "32", "-S", "512", "-n", label.upper()[:11], "-i", uuid.hex[:8])
    lines = [["mkfs.vfat", *volume, "-C", image, str((size_mb * _MIB or _fat_size(folder)) // 1024)]]
    for path in sorted(folder.rglob("*")):
        there = path.relative_to(folder).as_posix()
        if path.is_dir():
            lines.append(["mmd", "-i", image, f"::{there}"])
        else:
            lines.append(["mcopy", "-i", image, f"/build/in/{there}", f"::{there}"])
    script = "\n".join(("set -e", *map(shlex.join, lines)))
    toolbox.run(["sh", "-c", script], {"in": folder, "out": target.parent})


def _fat_size(folder: Path) -> int:
    content = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = max(_FAT_LEAST, int(content * 1.02) + _FAT_SPARE)
    return -(-needed // _MIB) * _MIB
