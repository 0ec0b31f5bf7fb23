# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gather what the nodes of some generations would fetch, and write it as one signed bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...plugins.module_utils.node import bundle as sealed
from ...plugins.plugin_utils import assemble, bundles, unit_store
from ...plugins.plugin_utils.assemble import Request
from ...plugins.plugin_utils.bundles import Content
from ...plugins.plugin_utils.faults import ConfigurationError, Fault
from ...plugins.plugin_utils.hardware import Facts
from ...plugins.plugin_utils.images import BUILT
from ...plugins.plugin_utils.signing import Signer
from ..units.tools import ToolFailed
from . import debs, openpgp

# What a plan for a machine without further facts assumes of it.
_PLAIN: dict[str, Any] = {
    "os": {"id": "debian", "version": "13"},
    "cpu": 1024,
    "memory_mb": 1 << 30,
    "disk_gb": 1 << 20,
}


@dataclass(frozen=True)
class Wanted:
    """A generation that the bundle is for: its id, its manifest, the architecture of its machines."""

    id: str
    manifest: Mapping[str, Any]
    architecture: str


def any_machine(architecture: str) -> dict[str, Facts]:
    """A machine of this architecture that has no GPU and enough of everything else. Raises ConfigurationError."""
    return {architecture: assemble.facts_from({**_PLAIN, "architecture": architecture}, "--arch")}


def planned(request: Request, fleet: Mapping[str, Facts]) -> list[Wanted]:
    """The generations of these machines; whether they meet the profile's minimum is asked when they are deployed.

    Raises ConfigurationError.
    """
    found: dict[tuple[str, str], Wanted] = {}
    for one in assemble.plans(request, fleet).values():
        if one.unsupported:
            raise ConfigurationError([Fault(one.unsupported)])
        built, architecture = assemble.generation(one), one.plan.kind.architecture
        found[built.id, architecture] = Wanted(built.id, built.manifest, architecture)
    return list(found.values())


def build(
    wanted: Sequence[Wanted],
    found: Sequence[debs.Deb],
    models: Sequence[Path],
    output: Path,
    store: Path,
    signer: Signer,
    epoch: int,
) -> str:
    """Write the bundle of `wanted`, all of one architecture, with the package files `found` and `models` (GGUF files).

    `epoch`: its date, in seconds since 1970. Returns its Merkle root. Raises ToolFailed, StoreBroken, SigningFailed,
    OSError.
    """
    architecture = wanted[0].architecture
    images = list(_images(wanted, store))
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
    rows = {row["digest"]: row for one in wanted for row in sealed.image_rows(one.manifest)}
    for digest, row in sorted(rows.items()):
        if not unit_store.blob_path(store, digest).is_file():
            what, verb = _way_to(row)
            raise ToolFailed(f"the unit store has no {what} {row['repository']}@{digest[:19]}…: {verb}")
        size = unit_store.verify_image(store, digest)
        parts = unit_store.parts(json.loads(unit_store.read_blob(store, digest)))
        blobs = [digest, *dict.fromkeys(part["digest"] for part in parts)]
        yield {"digest": digest, "repository": row["repository"], "size": size, "blobs": blobs}


def _way_to(row: Mapping[str, Any]) -> tuple[str, str]:
    """What a row of a generation's images stands for, and the command that brings it into the unit store."""
    if "venv" in row:
        return "wheels", f"kai wheels fetch {row['service']}"
    built = row["repository"].startswith(f"{BUILT}/")
    return "image", f"kai unit build {row['service']}" if built else f"kai unit lock --pull {row['service']}"


def packages(wanted: Iterable[Wanted]) -> list[frozenset[str]]:
    """What is installed together: the packages of each generation, and those of each move to an alternative."""
    found = []
    for one in wanted:
        own = frozenset(one.manifest["packages"])
        found += [own, *(own | set(move["packages"]) for move in one.manifest.get("alternatives", []))]
    return [packages for packages in dict.fromkeys(found) if packages]


def _blobs(images: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({blob for image in images for blob in image["blobs"]})
