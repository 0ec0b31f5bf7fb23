# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build an image from its recipe into the unit store: the same inputs give the same digest."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...plugins.plugin_utils import oci, recipes, unit_store
from ...plugins.plugin_utils.images import BUILT, Architecture
from ...plugins.plugin_utils.oci import Entry
from ...plugins.plugin_utils.recipes import Recipe
from ...plugins.plugin_utils.unit_store import Stored
from . import debian, pypi
from .debian import Package
from .pypi import Wheels

RECORD = "/usr/share/kos/image/materials"


@dataclass(frozen=True)
class Built:
    """An image that was built: where it is, its size in bytes, and what it is made of."""

    name: str
    stored: Stored
    size: int
    version: str
    materials: Mapping[str, str]

    @property
    def reference(self) -> str:
        """``repository@sha256:…``."""
        return f"{self.stored.repository}@{self.stored.digest}"


def build(services: Path, name: str, architecture: Architecture, store: Path) -> Built:
    """Build the image `name` for one architecture. Raises ConfigurationError, ToolFailed, OSError."""
    recipe = recipes.load_recipe(services, name)
    with tempfile.TemporaryDirectory(prefix="kos-unit-") as folder:
        found = debian.unpack(recipe.suite, architecture, recipe.packages, Path(folder))
        packages = [package for package in found.packages if package.name not in recipe.without]
        materials = {package.url: package.sha256 for package in packages}
        wheels = _wheels(services, name, recipe, architecture, Path(folder))
        materials |= wheels.materials
        with tarfile.open(found.tree) as archive:
            theirs = [entry for entry in oci.entries_of(archive) if _wanted(entry, found.owners, set(recipe.without))]
            unpacked = oci.left(theirs, recipe.leave_out)
            epoch = oci.newest(unpacked)
            entries = [*unpacked, *wheels.entries, *_own(services, name, recipe, materials)]
            with unit_store.new_blob(store) as stream:
                layer = oci.write_layer(entries, epoch, stream)
    version = _version(recipe, packages, wheels)
    run = {
        "Entrypoint": recipe.entrypoint,
        "Cmd": recipe.command,
        "Env": [f"{key}={value}" for key, value in sorted(_environment(recipe).items())],
        "WorkingDir": recipe.working_directory,
    }
    config = oci.configuration(architecture, layer, epoch, run, f"kai unit build {name}")
    unit_store.put_blob(store, config)
    repository = f"{BUILT}/{name}"
    labels = {
        "org.opencontainers.image.title": name,
        "org.opencontainers.image.description": recipe.summary,
        "org.opencontainers.image.licenses": recipe.licence,
        "org.opencontainers.image.version": version,
        oci.MATERIALS: oci.canonical(materials).decode(),
    }
    stored = unit_store.add_image(store, repository, oci.manifest(config, layer, labels), architecture)
    return Built(name, stored, unit_store.verify_image(store, stored.digest), version, materials)


def _wheels(services: Path, name: str, recipe: Recipe, architecture: Architecture, folder: Path) -> Wheels:
    if recipe.wheels is None:
        return Wheels([], {})
    return pypi.unpack(recipes.beside(services, name, recipe.wheels), recipe.suite, architecture, folder)


def _wanted(entry: Entry, owners: Mapping[str, set[str]], without: set[str]) -> bool:
    """Whether any package that stays brings it; what none brings, mmdebstrap made of this machine."""
    return bool(owners.get(entry.info.name, set()) - without)


def _environment(recipe: Recipe) -> dict[str, str]:
    return {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin", "LANG": "C.UTF-8", **recipe.environment}


def _own(services: Path, name: str, recipe: Recipe, materials: Mapping[str, str]) -> list[Entry]:
    """What the recipe adds to the packages, and the record of what the image is made of."""
    record = "".join(f"{url} sha256:{digest}\n" for url, digest in sorted(materials.items()))
    found = [oci.file_entry(RECORD, record.encode())]
    for file in recipe.files:
        beside = recipes.beside(services, name, file.source).read_bytes() if file.source else b""
        content = beside if file.content is None else file.content.encode()
        found.append(oci.file_entry(file.path, content, int(file.mode, 8)))
    return found + [oci.link_entry(path, target) for path, target in sorted(recipe.links.items())]


def _version(recipe: Recipe, packages: Iterable[Package], wheels: Wheels) -> str:
    """The version of what the image is about: the first wheel or package that the recipe names."""
    if recipe.about is not None:
        return next(url.rpartition("@")[2] for url in wheels.materials if url.startswith(f"pkg:pypi/{recipe.about}@"))
    return next(row.version for row in packages if row.name == recipe.packages[0])
