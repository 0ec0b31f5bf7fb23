# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a medium says about itself: its partition table, or the manifest beside it where it is a qcow2."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from ..plugins.plugin_utils import media as manifests
from ..plugins.plugin_utils import partition_table
from ..plugins.plugin_utils.media import NoManifest
from ..plugins.plugin_utils.partition_table import NoTable
from .errors import UsageError

AMD64, ARM64 = "amd64", "arm64"

# Partition types of the Discoverable Partitions Specification: only these name an architecture.
_ROOTS = {
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": AMD64,
    "b921b045-1df0-41c3-af44-4c6f280d3fae": ARM64,
}
# Labels of partitions that only a stick has, and only a Pi's card.
_STICK, _CARD = "kos-manifest", "kos-firmware"
_QCOW2 = b"QFI\xfb"


@dataclass(frozen=True)
class Medium:
    """A disk image: `format` is QEMU's word, `size` the bytes of the disk, not of the file.

    `stick`: it is made to be written on a USB stick. `card`: where the files for a Raspberry Pi's firmware begin, in
    bytes; None on anything but a Pi's card.
    """

    path: Path
    format: str
    size: int
    architecture: str
    stick: bool = False
    card: int | None = None


def look(path: Path) -> Medium:
    """What a file is. Raises UsageError where it is no medium, or of no known architecture."""
    try:
        with path.open("rb") as file:
            head = file.read(partition_table.HEAD)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return _qcow2(path, head) if head.startswith(_QCOW2) else _raw(path, head)


def _raw(path: Path, head: bytes) -> Medium:
    try:
        partitions = partition_table.read(head).partitions
    except NoTable as fault:
        raise UsageError(f"{path} is no disk image that boots: {fault}; `kos-image build` makes one") from fault
    found = {_ROOTS[one.type] for one in partitions if one.type in _ROOTS}
    if len(found) != 1:
        raise UsageError(f"{path} has no root partition for {AMD64} or {ARM64}; `kos-image build` makes one")
    stick = any(one.name == _STICK for one in partitions)
    card = next((one.start for one in partitions if one.name == _CARD), None)
    return Medium(path, "raw", path.stat().st_size, found.pop(), stick, card)


def _qcow2(path: Path, head: bytes) -> Medium:
    """Its partition table may be compressed, so the manifest is asked. The size: QEMU's docs/interop/qcow2.txt."""
    try:
        about = manifests.read_beside(path).manifest.about
    except (OSError, NoManifest) as error:
        raise UsageError(f"{path.name} does not say what machine it is for: {error}") from error
    return Medium(path, "qcow2", struct.unpack_from(">Q", head, 24)[0], about.architecture)
