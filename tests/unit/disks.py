# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images for tests: a GUID partition table of the usual layout, written byte by byte."""

from __future__ import annotations

import hashlib
import struct
import uuid
import zlib

SECTOR = 512
MIB = 1 << 20


def image(size, partitions, alternate=None):
    """A disk of `size` bytes; `partitions` are (label, start, size) in bytes, filled with noise."""
    disk = bytearray(size)
    for label, start, length in partitions:
        disk[start : start + length] = hashlib.shake_256(label.encode()).digest(length)
    put_table(disk, partitions, alternate)
    return disk


def put_table(disk, partitions, alternate=None):
    """Write the table of these partitions at the start of the disk, and its copy at the end."""
    last = alternate or len(disk) // SECTOR - 1
    entries = b"".join(_entry(*partition) for partition in partitions).ljust(128 * 128, b"\0")
    disk[446 : 446 + 16] = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, last)
    disk[510:512] = b"\x55\xaa"
    disk[SECTOR : 2 * SECTOR] = _header(1, last, 2, last, entries)
    disk[2 * SECTOR : 34 * SECTOR] = entries
    if alternate is None:
        disk[-33 * SECTOR :] = entries + _header(last, 1, last - 32, last, entries)


def _entry(label, start, length):
    own = uuid.uuid5(uuid.NAMESPACE_URL, label).bytes_le
    name = label.encode("utf-16-le")
    return struct.pack("<16s16sQQQ72s", own, own, start // SECTOR, (start + length) // SECTOR - 1, 0, name)


def _header(here, there, where, last, entries):
    def packed(crc):
        fields = (0x10000, 92, crc, 0, here, there, 2048, last - 33, b"d" * 16, where, 128, 128, zlib.crc32(entries))
        return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", *fields)

    return packed(zlib.crc32(packed(0))).ljust(SECTOR, b"\0")
