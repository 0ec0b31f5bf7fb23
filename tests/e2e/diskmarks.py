# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a machine of disk tests: what of a recorded disk is a node's, and marks in its log of what runs when."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

MIB = 1 << 20
SERIAL, DISK = "NODE", "/dev/disk/by-id/virtio-NODE"
BEGUN = "begun"


def partition(*regions: tuple[int, int]) -> None:
    """Lay the disk out: each region from where to where, in bytes. Raises CalledProcessError."""
    rows = [f"start={start // MIB}MiB, size={(end - start) // MIB}MiB" for start, end in regions]
    table = "\n".join(["label: gpt", *rows]) + "\n"
    subprocess.run(["sfdisk", "--quiet", DISK], input=table.encode(), check=True)
    shell(f"udevadm settle; mkfs.ext4 -q {DISK}-part1")


def shell(script: str) -> None:
    """Raises CalledProcessError."""
    subprocess.run(["bash", "-euc", script], check=True)


def attaching(places: str) -> str:
    """The script that puts the first partition where a node has it; the rest of the machine is not recorded."""
    return f"""
mkdir -p /run/disk
mount {DISK}-part1 /run/disk
for place in {places}; do
  mkdir -p /run/disk/$place /$place
  mount --bind /run/disk/$place /$place
done
"""


class Marks:
    """Blocks in a region of their own that say what runs next; the log of the disk has them in order.

    They are never flushed: that would bring to the disk what the code under test may have forgotten.
    """

    def __init__(self, path: str, at: int = 0) -> None:
        self._file, self._at = os.open(path, os.O_WRONLY | os.O_DIRECT), at
        self._block = mmap.mmap(-1, mmap.PAGESIZE)

    def listen(self, named: Callable[[str, Sequence[object]], str]) -> None:
        """Put what `named` makes of the events of this process from now on (the audit events of Python's own table)."""

        def hear(event: str, arguments: Sequence[object]) -> None:
            if text := named(event, arguments):
                self.put(text)

        sys.addaudithook(hear)

    def put(self, text: str) -> None:
        self._block[:] = text.encode()[: mmap.PAGESIZE].ljust(mmap.PAGESIZE, b"\0")
        os.pwrite(self._file, self._block, self._at)
        self._at += mmap.PAGESIZE
