# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One directory made the same as another, while somebody writes into it, so often that the last time is short.

Each time it copies what has changed since the time before, by size and by modification time to the nanosecond. Two
things could hide from that, and are seen to here. A file that is written twice within one tick of the kernel's clock
has one time for both: what is as new as the time before is copied again. And a page of a mapped file gets no new time
while it is dirty: all is synced before, so that the next write to it does.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass

from .. import files, system

# hard links, access lists, extended attributes, holes; nothing of another file system; times to the nanosecond
_RSYNC = ["rsync", "--archive", "--hard-links", "--acls", "--xattrs", "--sparse", "--numeric-ids", "--one-file-system",
          "--delete", "--modify-window=-1"]  # fmt: skip
_VANISHED = 24  # what was deleted while it was read
_TICK = 2.0  # seconds: more than any file system rounds


@dataclass(frozen=True)
class Pass:
    """One time of copying: when it began (of the clock that files have), how long it took, bytes that it moved."""

    began: float
    seconds: float
    bytes: int


def once(pairs: Iterable[tuple[str, str]], before: Pass | None, still: bool = False) -> Pass:
    """Make each second directory of `pairs` the same as its first; `still`: nobody writes into that any more.

    Raises CommandFailed, OSError.
    """
    began, clock, moved = time.time() - _TICK, time.monotonic(), 0
    os.sync()
    for source, target in pairs:
        os.makedirs(target, mode=0o700, exist_ok=True)
        if before:
            _doubt(target, before.began)
        done = system.run([*_RSYNC, "--stats", "--no-human-readable", f"{source}/", f"{target}/"], check=False)
        if done.returncode and (still or done.returncode != _VANISHED):
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise system.CommandFailed(f"copying {source} failed ({done.returncode}): {' / '.join(said[-3:])}")
        moved += _bytes(done.stdout.decode(errors="replace"))
    os.sync()
    return Pass(began, time.monotonic() - clock, moved)


def _doubt(folder: str, since: float) -> None:
    """Give every copy of a file that was changed since then a time that no file has: the next pass takes it again."""
    for place, _folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_mtime >= since:
                os.utime(path, (0, 0), follow_symlinks=False)


def _bytes(said: str) -> int:
    rows = [line.partition(":")[2] for line in said.splitlines() if line.startswith("Total transferred file size:")]
    digits = "".join(letter for letter in (rows or ["0"])[0] if letter.isdecimal())
    return int(digits or 0)


def differences(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """What differs between the directories of each pair, by everything but the content of files; nobody writes now."""
    found = []
    for source, target in pairs:
        look = [*_RSYNC, "--dry-run", "--itemize-changes", f"{source}/", f"{target}/"]
        found += [f"{source}: {line}" for line in system.run(look).stdout.decode(errors="replace").splitlines() if line]
    return found


def amount(paths: Iterable[str]) -> int:
    """Bytes that the trees take on their disk."""
    total = 0
    for path in paths:
        for place, folders, names in os.walk(path):
            for name in [*folders, *names]:
                try:
                    total += os.lstat(os.path.join(place, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
    return total


def overwrite(path: str) -> None:
    """Take the content of a tree away: each file overwritten where it lies, then removed. The directory itself stays.

    On a disk that moves what is written (SSD, btrfs) the old blocks may live on: its owner is told so.
    """
    for place, folders, names in os.walk(path, topdown=False):
        for name in names:
            _overwrite(os.path.join(place, name))
        for name in folders:
            below = os.path.join(place, name)
            os.unlink(below) if os.path.islink(below) else os.rmdir(below)
    files.sync_directory(os.path.join(path, "."))


def _overwrite(path: str) -> None:
    status = os.lstat(path)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            block = bytes(1 << 20)
            for offset in range(0, status.st_size, len(block)):
                os.pwrite(descriptor, block[: min(len(block), status.st_size - offset)], offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    os.unlink(path)
