# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a medium is made of, as CycloneDX: Debian packages, wheels, and all that its bundle holds. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from .packages import Package

FILE = "sbom.cdx.json"
_DISTRO = "debian-13"


def document(name: str, version: str, epoch: int, seed: UUID, components: Iterable[Component]) -> str:
    """The list as JSON; the same contents give the same bytes. `epoch` is its date, in seconds since 1970."""
    medium = Component(name=name, version=version, type=ComponentType.OPERATING_SYSTEM, bom_ref=name)
    parts = {str(one.purl or one.bom_ref): one for one in components}
    serial = uuid5(seed, hashlib.sha256(json.dumps(sorted(map(_line, parts.values()))).encode()).hexdigest())
    about = BomMetaData(component=medium, timestamp=datetime.fromtimestamp(epoch, UTC))
    bom = Bom(components=parts.values(), metadata=about, serial_number=serial)
    bom.register_dependency(medium, parts.values())
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1) + "\n"


def _line(one: Component) -> str:
    return f"{one.purl or one.name} {' '.join(row.content for row in one.hashes)}"


def packages(rows: Iterable[Package]) -> list[Component]:
    """Debian packages, as they are locked: the name of a file tells neither an epoch nor where `all` is meant."""
    return [_component(_deb(one), one.sha256, ComponentType.LIBRARY) for one in rows]


def _deb(row: Package) -> PackageURL:
    return PackageURL("deb", "debian", row.name, row.version, {"arch": row.architecture, "distro": _DISTRO})


def kos(version: str, sha256: str) -> Component:
    """KOS itself; `sha256` is that over all its files."""
    return _component(PackageURL("generic", None, "kos", version), sha256, ComponentType.APPLICATION)


def wheels(materials: Mapping[str, str]) -> list[Component]:
    """Wheels, by package URL and SHA-256."""
    found = [(PackageURL.from_string(url), digest) for url, digest in materials.items()]
    return [_component(url, digest, ComponentType.LIBRARY) for url, digest in found]


def bundled(manifest: Mapping[str, Any]) -> list[Component]:
    """What a bundle says it holds beside the packages of the lock: images by their digest, language models."""
    found = []
    for row in manifest["content"]:
        folder, _slash, name = row["path"].rpartition("/")
        if folder == "models":
            model = Component(name=name, type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref=f"model:{name}")
            model.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=row["sha256"]))
            found.append(model)
    for image in manifest["images"]:
        sha256 = image["digest"].removeprefix("sha256:")
        repository = image["repository"]
        url = PackageURL("oci", None, repository.rpartition("/")[2], image["digest"], {"repository_url": repository})
        found.append(_component(url, sha256, ComponentType.CONTAINER))
    return found


def _component(url: PackageURL, sha256: str, kind: ComponentType) -> Component:
    return Component(
        name=url.name,
        version=url.version,
        type=kind,
        purl=url,
        bom_ref=url.to_string(),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
    )
