# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What file systems have in common here: mounted for a moment, and known by their UUID."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .runner import Log, outcome, run

_MOMENT = Path("/run/kos")


@contextmanager
def mounted(device: str, kind: str, options: str, log: Log) -> Iterator[Path]:
    """A file system for a moment, at a place of its own. Raises ApplyFailed."""
    _MOMENT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mounted-", dir=_MOMENT) as name:
        run(["mount", "-t", kind, "-o", options, device, name], log=log)
        try:
            yield Path(name)
        finally:
            run(["umount", name], log=log)


def probe(device: str, tag: str) -> str:
    """What a device says about itself (UUID, LABEL, TYPE), read from the device; empty where it says nothing."""
    said, code = outcome(["blkid", "--probe", "--match-tag", tag, "--output", "value", device])
    return "" if code else said.strip()
