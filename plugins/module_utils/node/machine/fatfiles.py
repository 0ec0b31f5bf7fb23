# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on a FAT, which has no journal: each step here leaves a state in which what booted before still boots.

A rename on FAT is two writes: a power cut between them leaves a file with two names, or with none. So a file that makes
something start gets its own name from the beginning, its first byte masked: neither systemd-boot (no `linux` line, no
program) nor firmware (no program) looks at it. When all of it is on disk, one write of one sector takes the mask away.
"""

from __future__ import annotations

import contextlib
import os
import shutil

from .. import files
from ..files import NodeError

MASK = b"#"
# What a file that can be masked begins with: a space before the first key of an entry, the letters MZ of a program.
_TRUE = {".conf": b" ", ".efi": b"M"}
_CHUNK = 1 << 20
# What a FAT needs beside the files: directories, half-used clusters.
_MARGIN = 4 << 20


class NotOnFat(NodeError):
    """The partition cannot take what must come onto it."""


def require_room(folder: str, wanted: int) -> None:
    """Raise NotOnFat unless `wanted` bytes more fit where `folder` is."""
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if free < wanted + _MARGIN:
        raise NotOnFat(
            f"{folder} has {free >> 20} MiB free, a boot entry needs {(wanted + _MARGIN) >> 20}: "
            "remove a system that is no longer wanted (kai update --list)"
        )


def write(path: str, content: bytes, masked: bool = False) -> None:
    """A new file with `content`, on disk when this returns. One that was there is removed first. Raises OSError."""
    remove(path)
    files.make_directory(os.path.dirname(path))
    with open(path, "xb") as stream:
        stream.write(_hidden(path, content[:1]) + content[1:] if masked else content)
        stream.flush()
        os.fsync(stream.fileno())
    files.sync_directory(path)


def copy(source: str, path: str, masked: bool = False) -> None:
    """As `write`, with the content of the file `source`. Raises OSError."""
    remove(path)
    files.make_directory(os.path.dirname(path))
    with open(source, "rb") as content, open(path, "xb") as stream:
        first = content.read(1)
        stream.write(_hidden(path, first) if masked else first)
        shutil.copyfileobj(content, stream, _CHUNK)
        stream.flush()
        os.fsync(stream.fileno())
    files.sync_directory(path)


def _hidden(path: str, first: bytes) -> bytes:
    if first != _true(path):
        raise NotOnFat(f"{path} does not begin as such a file does: it is damaged at its source")
    return MASK


def _true(path: str) -> bytes:
    return _TRUE[os.path.splitext(path)[1].lower()]


def unmask(path: str) -> None:
    """Make a masked file what it is: one sector is written, in place. Raises OSError."""
    overwrite(path, _true(path))


def mask(path: str) -> None:
    """Take a file out of use, as it was before `unmask`. Raises OSError."""
    overwrite(path, MASK)


def masked(path: str) -> bool:
    """Whether a file is out of use still, or again; one that is empty is what a crash left."""
    with open(path, "rb") as stream:
        return stream.read(1) in (MASK, b"")


def overwrite(path: str, content: bytes) -> None:
    """Replace the first bytes of a file in place, all in one sector when they are few. Raises OSError."""
    with open(path, "r+b", buffering=0) as stream:
        stream.write(content)
        os.fsync(stream.fileno())


def rename(path: str, name: str) -> None:
    """Give a file that starts something another name in its directory: by a copy, so that one of the two is whole.

    Raises OSError, NotOnFat where there is no room for both.
    """
    target = os.path.join(os.path.dirname(path), name)
    if not os.path.exists(target) or masked(target):
        require_room(os.path.dirname(path), os.path.getsize(path))
        copy(path, target, masked=True)
        unmask(target)
    remove(path)


def remove(path: str) -> None:
    """Delete a file; one that starts something is masked first. Nothing to do when it is not there."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.splitext(path)[1].lower() in _TRUE and os.path.getsize(path):
            mask(path)
        files.remove(path)


def remove_folder(path: str) -> None:
    """Delete a directory and what is in it; nothing to do when it is not there."""
    if os.path.isdir(path):
        shutil.rmtree(path)
        files.sync_directory(path)
