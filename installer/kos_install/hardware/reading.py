# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where facts about a machine are read: its /sys and /dev, and programs that print JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node.machine.signatures import Ask as Ask

_BEGINNING = 1 << 20  # bytes: every file system, LUKS and RAID have said what they are by then
_PATIENCE = 60  # seconds: a disk that is dying answers late


def ask(argv: Sequence[str]) -> Any:
    """What a program prints as JSON; None where it is missing, fails, or prints something else."""
    try:
        done = subprocess.run(argv, capture_output=True, check=True, text=True, timeout=_PATIENCE)
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def line(path: Path) -> str:
    """The first line of a file of /sys, without what surrounds it; empty where it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.readline().strip().strip("\0")
    except OSError:
        return ""


def blank(device: Path, start: int = 0) -> bool:
    """Whether nothing but zeros is where signatures and headers begin. Raises OSError."""
    with device.open("rb", buffering=0) as stream:
        stream.seek(start)
        return not any(stream.read(_BEGINNING))


def plain(value: str | None) -> str:
    """A serial number as it is compared and shown: one blank for what no screen shows, none around it."""
    return "".join(char if char.isprintable() else " " for char in value or "").strip()


def number(path: Path) -> int:
    """The number in a file of /sys; 0 where there is none."""
    text = line(path)
    return int(text) if text.isascii() and text.isdecimal() else 0
