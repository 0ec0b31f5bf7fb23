# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine that somebody described in a file, for dry runs; in YAML, JSON or TOML.

What `kos-install --dry-run --json` prints has one in `machine`.
"""

from __future__ import annotations

from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils.documents import read_document
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse

from .model import Machine


def load(path: Path) -> Machine:
    """The machine in a file. Raises ConfigurationError, with the line of each fault."""
    document = read_document(path)
    return parse(Machine, document.data, document.place)
