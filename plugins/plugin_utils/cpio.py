# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a kernel unpacks before it starts anything: an archive (cpio, newc) that follows its initrd."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import PurePosixPath


def archive(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The files, given as path: (mode, content), and the folders they lie in; all of them root's."""
    entries: dict[str, tuple[int, bytes]] = {}
    for name in sorted(files):
        for folder in reversed(PurePosixPath(name).parents[:-1]):
            entries.setdefault(str(folder), (stat.S_IFDIR | 0o755, b""))
        mode, content = files[name]
        entries[name] = (stat.S_IFREG | mode, content)
    records = [_record(number, name, *entry) for number, (name, entry) in enumerate(entries.items(), start=1)]
    return b"".join([*records, _record(0, "TRAILER!!!", 0, b"")])


def appended(initrd: bytes, files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """An initrd with the files behind it."""
    return initrd + behind(len(initrd), files)


def behind(size: int, files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """What follows an initrd of `size` bytes, so that the kernel unpacks the files as well."""
    return b"\0" * (-size % 4) + archive(files)


def _record(inode: int, name: str, mode: int, content: bytes) -> bytes:
    path = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    header = "070701" + "".join(f"{number:08X}" for number in numbers)
    return _padded(header.encode() + path) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
