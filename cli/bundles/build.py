# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gather what the nodes of some generations would fetch, and write it as one signed bundle."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...plugins.module_utils.node import bundle as sealed
from ...plugins.plugin_utils import bundles, unit_store
from ...plugins.plugin_utils.bundles import Content
from ...plugins.plugin_utils.images import BUILT
from ...plugins.plugin_utils.signing import Signer
from ..units.tools import ToolFailed
from . import debs, openpgp


@dataclass(frozen=True)
class Wanted:
    """A generation that the bundle is for: its id, its manifest, the architecture of its machines."""

    id: str
    manifest: Mapping[str, Any]
    architecture: str


def build(
    wanted: Sequence[Wanted], models: Sequence[Path], output: Path, store: Path, cache: Path, signer: Signer
) -> str:
    """Write the bundle of `wanted`, all of one architecture, with `models` (GGUF files); returns its Merkle root.

    Raises ToolFailed, StoreBroken, SigningFailed, OSError.
    """
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    architecture = wanted[0].architecture
    images = list(_images(wanted, store))
    found = debs.fetch(_packages(wanted), architecture, cache)
    about = {
        "architecture": architecture,
        "made": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "by": signer.public.partition(" ")[2].partition(" ")[2],
        "generations": [bundles.generation_row(one.id, one.manifest) for one in wanted],
        "images": images,
    }
    with tempfile.TemporaryDirectory(prefix="kos-bundle-") as folder:
        contents = [
            *_repository(found, architecture, epoch, signer.path.parent, Path(folder)),
            *(Content(sealed.BLOBS + name[7:], unit_store.blob_path(store, name)) for name in _blobs(images)),
            *(Content(f"{sealed.MODELS}{path.stem.lower()}.gguf", path) for path in models),
        ]
        return bundles.write(output, about, contents, signer)


def _repository(
    found: Sequence[debs.Deb], architecture: str, epoch: int, keys: Path, folder: Path
) -> Iterator[Content]:
    index = debs.index(found)
    signed = openpgp.sign(debs.release(index, architecture, epoch), epoch, keys)
    for name, content in (("Packages", index), ("InRelease", signed.release), ("key.asc", signed.key)):
        (folder / name).write_bytes(content)
        yield Content(f"{sealed.REPOSITORY}{name}", folder / name)
    for deb in found:
        yield Content(f"{sealed.REPOSITORY}{deb.filename}", deb.path)


def _images(wanted: Iterable[Wanted], store: Path) -> Iterator[dict[str, Any]]:
    """Each image of the generations, proved, with the names of its blobs. Raises StoreBroken, ToolFailed."""
    rows = {row["digest"]: row for one in wanted for row in bundles.image_rows(one.manifest)}
    for digest, row in sorted(rows.items()):
        if not unit_store.blob_path(store, digest).is_file():
            built = row["repository"].startswith(f"{BUILT}/")
            verb = f"kai unit build {row['service']}" if built else f"kai unit lock --pull {row['service']}"
            verb = f"kai wheels fetch {row['service']}" if "venv" in row else verb
            raise ToolFailed(f"the unit store has no image {row['repository']}@{digest[:19]}…: {verb}")
        size = unit_store.verify_image(store, digest)
        parts = unit_store.parts(json.loads(unit_store.read_blob(store, digest)))
        blobs = [digest, *dict.fromkeys(part["digest"] for part in parts)]
        yield {"digest": digest, "repository": row["repository"], "size": size, "blobs": blobs}


def _packages(wanted: Iterable[Wanted]) -> list[frozenset[str]]:
    """What is installed together: the packages of each generation, and those of each move to an alternative."""
    found = []
    for one in wanted:
        own = frozenset(one.manifest["packages"])
        found += [own, *(own | set(move["packages"]) for move in one.manifest.get("alternatives", []))]
    return [packages for packages in dict.fromkeys(found) if packages]


def _blobs(images: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({blob for image in images for blob in image["blobs"]})
