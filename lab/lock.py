# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One command at a time may change a lab."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from typing import TextIO

from .errors import LabError
from .identity import Lab


@contextlib.contextmanager
def held(lab: Lab) -> Iterator[None]:
    """Hold the lab's lock. Raises LabError at once where another command holds it."""
    lock = _open(lab)
    try:
        yield
    finally:
        if not lab.var.exists():
            _remove(lab)
        lock.close()


def _remove(lab: Lab) -> None:
    """The lab is down: take its folders along, and those of all labs where this was the last."""
    shutil.rmtree(lab.run)
    for shared in (lab.run.parent, lab.var.parent):
        with contextlib.suppress(OSError):
            shared.rmdir()


def _open(lab: Lab) -> TextIO:
    path = lab.run / "lock"
    while True:
        lab.run.mkdir(parents=True, exist_ok=True)
        try:
            lock = path.open("a+")
        except FileNotFoundError:
            continue  # a `down` has just removed the folder
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            message = f"another command (process {holder}) is changing this lab; wait until it has ended"
            raise LabError(message) from None
        # `down` removes the file it holds: a lock on a file that is gone guards nothing.
        if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
            break
        lock.close()
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
