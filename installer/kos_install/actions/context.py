# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What actions work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..answers import Answers
from ..hardware.model import Machine
from ..storage.actions import Plan


@dataclass(frozen=True)
class Context:
    """One install. `secrets` (passphrase, tpm2_pin, wifi passphrases by SSID …) live in memory alone."""

    answers: Answers
    machine: Machine
    plan: Plan
    # what the plan destroys was confirmed just now, not in an install before that is resumed
    confirmed: bool = False
    target: Path = Path("/run/kos/target")
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    # id of the action, done, total, "bytes" or "steps"
    progress: Callable[[str, int, int, str], None] = lambda *_: None
    # id of the action; "started", "skipped" (it stands from before) or "done"
    action: Callable[[str, str], None] = lambda _id, _state: None
    log: Callable[[str], None] = lambda _text: None
    # secrets that were made on the way (recovery_key); never kept
    made: dict[str, str] = field(default_factory=dict, repr=False)
    # shown once to whoever watches; never kept
    show_recovery_key: Callable[[str], None] = field(default=lambda _key: None, repr=False)
