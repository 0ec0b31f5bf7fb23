# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node must have at hand to move to an alternative with no network: packages and images, fetched beforehand."""

from __future__ import annotations

import os
from typing import Any

from . import files, images, ledger, space, system
from .files import NodeError, Root
from .store import Generation

READY = "alternatives.json"


def sizes(root: Root, manifest: dict[str, Any], lists: str | None = None, source: system.Source = system.USUAL) -> int:
    """Bytes that `fetch` would download; 0 where they cannot be found out."""
    return sum(row.size for row in to_fetch(root, manifest, lists, source))


def to_fetch(
    root: Root, manifest: dict[str, Any], lists: str | None = None, source: system.Source = system.USUAL
) -> list[system.Download]:
    """What `fetch` would download, each once; nothing of an alternative of which that cannot be found out."""
    rows = [row for wanted in _missing(root, manifest).values() for row in _to_fetch(root, wanted, lists, source)]
    return list({row.name: row for row in rows}.values())


def packages_missing(root: Root, manifest: dict[str, Any]) -> bool:
    """Whether moving to an alternative would install a package."""
    return any(_missing(root, manifest).values())


def images_not_stored(root: Root, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The image rows of the alternatives whose image is not on the node."""
    rows = [row for move in manifest.get("alternatives", []) for row in move["images"]]
    return images.not_stored(root, rows)


def fetch(root: Root, generation: Generation, source: system.Source = system.USUAL) -> int:
    """Bring the packages and images of every alternative here, so that moving to one needs no network.

    Returns the bytes of packages. What cannot be fetched is no reason to refuse a deploy: `readiness` tells of it.
    """
    total, ready = 0, {}
    wanted = _missing(root, generation.manifest)
    for move in generation.manifest.get("alternatives", []):
        try:
            total += _fetch_packages(root, wanted[move["service"]], source)
            if source.local and images.not_stored(root, move["images"]):
                raise images.NoImage("the bundle lacks its container image")
            if images.not_stored(root, move["images"]) and images.can_fetch(move["images"]):
                images.fetch(root, generation, move["images"])
            ready[move["service"]] = ""
        except (NodeError, OSError) as error:
            ready[move["service"]] = files.spoken(error) if isinstance(error, OSError) else str(error)
    if ready or os.path.exists(root.state(READY)):
        files.write_json(root.state(READY), ready)
    return total


def _fetch_packages(root: Root, wanted: list[str], source: system.Source) -> int:
    if not wanted:
        return 0
    rows = system.packages_to_fetch(root, wanted, source=source)
    size = sum(row.size for row in rows)
    if not source.local:
        space.require(root, space.for_packages(size, 0))
        book = ledger.load(root)
        book.downloads = sorted({*book.downloads, *(row.name for row in rows)})
        ledger.save(root, book)
    system.download_packages(root, wanted, source)
    return size


def readiness(root: Root, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Every alternative of the generation in force, with why its packages are not here, or nothing."""
    ready = files.read_json(root.state(READY), {})
    return [
        {"service": row["service"], "instead": row["instead"], "lacks": ready.get(row["service"], "")}
        for row in manifest.get("alternatives", [])
    ]


def _missing(root: Root, manifest: dict[str, Any]) -> dict[str, list[str]]:
    """The packages of each alternative that are not installed."""
    states = system.package_states(root)
    return {
        row["service"]: [name for name in row["packages"] if states.get(name) != "installed"]
        for row in manifest.get("alternatives", [])
    }


def _to_fetch(root: Root, wanted: list[str], lists: str | None, source: system.Source) -> list[system.Download]:
    try:
        return system.packages_to_fetch(root, wanted, lists, source) if wanted else []
    except NodeError:
        return []
