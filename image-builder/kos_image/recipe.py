# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which stages lead to which output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from . import root_tree
from .kit import Kit, settings
from .stages import Folders, Stage

# What the last stage of every output leaves: the file that was asked for, what lies beside it under longer names, and
# what is to be said of it.
RESULT = "result"
FACTS = "facts.json"


def last(kit: Kit) -> Stage:
    """The stage whose RESULT is what was asked for; what it needs stands behind it."""
    return _LAST[kit.asked.output](kit)


def root(kit: Kit) -> Stage:
    """The packages of the medium, installed."""
    definition = kit.medium
    locked = kit.lock.of(definition.output)

    def make(folder: Path, made: Folders) -> None:
        debs = kit.debs(locked)
        root_tree.make(kit.box(made), locked, definition.packages, definition.architecture, debs, folder)

    inputs = {
        "packages": kit.lock.digest(definition.output),
        "asked for": settings(sorted(definition.packages)),
        "recipe": str(root_tree.VERSION),
    }
    return Stage("root", "installing the packages", make, inputs, (kit.toolbox,))


def finish(folder: Path) -> None:
    """Write down what the result is."""
    path = folder / RESULT
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    (folder / FACTS).write_text(json.dumps({"size": path.stat().st_size, "sha256": digest}))


_LAST: dict[str, Callable[[Kit], Stage]] = {}
