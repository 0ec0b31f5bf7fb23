# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node is made of, as one document that two nodes can be compared by."""

from __future__ import annotations

import os
import platform
from typing import Any

from . import drift, facts, files, history, join, merkle, status, store, system
from .files import Root

FORMAT = 1


def composition(root: Root) -> dict[str, Any]:
    """The machine, its current generation with the digest of each file of it on the disk, what drifted, its packages.

    The generation's `id` is computed from that disk; `committed` is the one that was deployed.
    """
    generation = store.current(root)
    return {
        "format": FORMAT,
        "node": os.uname().nodename,
        "machine": _machine(root),
        "generation": _generation(root, generation) if generation else None,
        "drift": [{"what": row["what"], "problem": row["problem"]} for row in drift.findings(root)],
        "packages": system.package_versions(root),
    }


def _machine(root: Root) -> dict[str, Any]:
    """What may differ between nodes that are otherwise one another's equal."""
    known = facts.facts(root)
    chosen = {key: known[key] for key in ("architecture", "cpu", "memory_mb", "disk_gb", "disk_encrypted")}
    release = (files.read(root.join("/etc/debian_version")) or b"").decode().strip()
    return {**chosen, "addresses": join.addresses(), "debian": release, "kernel": platform.release()}


def _generation(root: Root, generation: store.Generation) -> dict[str, Any]:
    rows = [row for row in history.read(root) if row["generation"] == generation.number]
    leaves = store.leaves(generation)
    return {
        "number": generation.number,
        "id": merkle.root(leaves),
        "committed": rows[-1]["id"] if rows else None,
        "signed_by": status.signed_by(root),
        "alternative": generation.alternative,
        "manifest": generation.manifest,
        "files": dict(leaves),
    }
