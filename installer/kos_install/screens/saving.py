# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers as a file, as a person would write it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

_HEAD = "# Answers of kos-install. The secrets are not in it: kos-install --schema says where they may come from.\n"


def save(answers: dict[str, Any], path: Path) -> None:
    """Write the file, for its owner alone: it may hold the hash of a password. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(_HEAD + yaml.safe_dump(answers, sort_keys=False, allow_unicode=True))
        stream.flush()
        os.fsync(stream.fileno())
