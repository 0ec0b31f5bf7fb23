# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files with holes: disks of many gigabytes, of which little was ever written."""

from __future__ import annotations

import ctypes
import os

# fallocate(2): FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE
_PUNCH = 1 | 2


def punch(file, start, end):
    """Make a region a hole, which reads as zeros. Raises OSError."""
    call = ctypes.CDLL(None, use_errno=True).fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if call(file.fileno(), _PUNCH, start, end - start):
        raise OSError(ctypes.get_errno(), "a hole could not be made")


def pieces(file, start, end):
    """What of a region is no hole: each place and its content."""
    while start < end:
        try:
            start = os.lseek(file.fileno(), start, os.SEEK_DATA)
        except OSError:
            return
        stop = min(end, os.lseek(file.fileno(), start, os.SEEK_HOLE))
        if start < stop:
            yield start, os.pread(file.fileno(), stop - start, start)
        start = stop


def copy(source, start, end, sink, at):
    """Write what of a region is no hole to another file, at a place where that has one."""
    for place, content in pieces(source, start, end):
        sink.seek(at + place - start)
        sink.write(content)


def saved(file, start, end):
    """What makes a region again what it is now."""
    before = list(pieces(file, start, end))

    def restore():
        punch(file, start, end)
        for at, content in before:
            os.pwrite(file.fileno(), content, at)

    return restore
