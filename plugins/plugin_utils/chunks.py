# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SHA3-256 of the pieces of a large file or device, on all processors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

# What each thread holds in memory.
CHUNK = 4 << 20

Progress = Callable[[int, int], None]


def digests(path: Path, pieces: Sequence[tuple[int, int]], progress: Progress | None = None) -> Iterator[str]:
    """SHA3-256 of each piece (start, length) of a file or device, in order; on all processors. Raises OSError.

    `progress` is told the bytes done and the bytes in all. What the file lacks of a piece is not hashed.
    """
    total, done = sum(length for _start, length in pieces), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        # Hashing and reading both let go of the interpreter, and each thread holds one piece.
        for (_start, length), digest in zip(pieces, pool.map(partial(_digest, descriptor), pieces), strict=True):
            done += length
            if progress:
                progress(done, total)
            yield digest
    finally:
        pool.shutdown(cancel_futures=True)
        os.close(descriptor)


def _digest(descriptor: int, piece: tuple[int, int]) -> str:
    start, length = piece
    hasher = hashlib.sha3_256()
    while length and (content := os.pread(descriptor, min(length, CHUNK), start)):
        hasher.update(content)
        start, length = start + len(content), length - len(content)
    return hasher.hexdigest()
