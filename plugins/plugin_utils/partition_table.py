# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a GUID partition table, and say whether it is whole: what a stick that has grown is judged by. Pure.

Layout: UEFI Specification 2.10, chapter 5.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass

SECTOR = 512
# Boot code of a BIOS and the disk signature; the four old partitions follow.
BOOT_CODE = 446
# The usual 128 entries of 128 bytes, with the header before them and the old table before that.
HEAD = 34 * SECTOR
TAIL = 33 * SECTOR
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_PROTECTIVE = 0xEE
_MAGIC, _BOOTABLE = b"EFI PART", b"\x55\xaa"
_MOST_SECTORS = (1 << 63) // SECTOR  # what a file may be long


class NoTable(Exception):
    """There is no whole partition table here; the text says what is broken."""


@dataclass(frozen=True)
class Partition:
    """A partition: its label, its type and own GUID, where it starts and how long it is (bytes), its attributes."""

    name: str
    type: str
    id: str
    start: int
    size: int
    attributes: int = 0


@dataclass(frozen=True)
class Table:
    """The partitions in order of their start, and where the table says that its copy lies (bytes)."""

    partitions: tuple[Partition, ...]
    copy: int


def read(head: bytes) -> Table:
    """The table at the start of a disk of which `head` are the first HEAD bytes. Raises NoTable."""
    if len(head) < HEAD:
        raise NoTable("it is cut short")
    _check_protective(head[:SECTOR])
    header = head[SECTOR : 2 * SECTOR]
    magic, _version, length, crc, reserved, here, copy, _first, _last, _id, where, count, size, crc_of_entries = (
        _HEADER.unpack_from(header)
    )
    if magic != _MAGIC:
        raise NoTable("it has no GPT header")
    blank = header[:16] + bytes(4) + header[20:92]
    if (length, here, reserved) != (92, 1, 0) or zlib.crc32(blank) != crc or any(header[92:]):
        raise NoTable("its header is not what its checksum says")
    if (where, count, size) != (2, 128, _ENTRY.size):
        raise NoTable("its entries are not where everybody puts them")
    entries = head[2 * SECTOR : HEAD]
    if zlib.crc32(entries) != crc_of_entries:
        raise NoTable("its entries are not what their checksum says")
    found = [_partition(entries[at : at + size]) for at in range(0, len(entries), size)]
    return Table(tuple(sorted((one for one in found if one), key=lambda one: one.start)), copy * SECTOR)


def traced(head: bytes) -> bool:
    """Whether this was ever such a disk, broken as it may be: header and protective MBR each show that alone."""
    protective = head[510:SECTOR] == _BOOTABLE and head[450:451] == bytes([_PROTECTIVE])
    return protective or head[SECTOR : SECTOR + 8] == _MAGIC


def _check_protective(sector: bytes) -> None:
    """One old partition of all the disk, which keeps old tools away; its length may be that of another disk."""
    status, _chs, kind, first = sector[446], sector[447:450], sector[450], struct.unpack_from("<I", sector, 454)[0]
    if sector[510:] != _BOOTABLE or (kind, first) != (_PROTECTIVE, 1) or status not in (0, 0x80):
        raise NoTable("its protective MBR is not one")
    if any(sector[462:510]):
        raise NoTable("its protective MBR holds more than it should")


def _partition(entry: bytes) -> Partition | None:
    kind, own, first, last, attributes, name = _ENTRY.unpack(entry)
    if not any(kind):
        return None
    if not first <= last < _MOST_SECTORS:
        raise NoTable("it has a partition that can be on no disk")
    label = name.decode("utf-16-le", errors="replace").partition("\0")[0]
    size = (last - first + 1) * SECTOR
    return Partition(label, _guid(kind), _guid(own), first * SECTOR, size, attributes)


def _guid(content: bytes) -> str:
    return str(uuid.UUID(bytes_le=content))
