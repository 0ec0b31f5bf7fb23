# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The specification's container unit: images, manifest and templates as one content-addressed, signed tree of files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..module_utils.node import attestation, trust
from ..module_utils.node.files import NodeError
from . import oci
from .catalogue import Catalogue
from .documents import read_document
from .faults import ConfigurationError, Fault, Place
from .images import Image
from .models import Strict, parse

TRUST = "unit_trust.yaml"
INTENTS = ("install", "security", "improvement", "rollback")
Intent = Literal["install", "security", "improvement", "rollback"]
Tier = Literal["core", "trusted", "community", "untrusted"]
_STATEMENT = "https://in-toto.io/Statement/v1"
_PROVENANCE = "https://slsa.dev/provenance/v1"
_BUILD_TYPE = "urn:kos:unit:1"
_CUSTODY = "urn:kos:custody:1"


class UnitTrust(Strict):
    """Who may sign units, and how many of them a unit needs by its trust tier. A site's file goes over kOS's own."""

    version: Literal[1]
    needed: dict[Tier, Annotated[int, Field(ge=1, le=16)]] = {}
    signers: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")], str],
        Field(description="name -> public key, as `kai trust key` prints it"),
    ] = {}


@dataclass(frozen=True)
class Unit:
    """A unit: every file by its path, what is said about them included."""

    files: Mapping[str, bytes]

    @property
    def id(self) -> str:
        """The SHA3-256 Merkle root over the files: 64 hexadecimal digits."""
        return attestation.identity(self.files)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the unit is. Raises UnitRefused."""
        return attestation.manifest(self.files)

    @property
    def name(self) -> str:
        """The service that it runs. Raises UnitRefused."""
        return str(self.manifest["name"])

    @property
    def statement(self) -> dict[str, Any]:
        """Who built it from what, when and why. Raises UnitRefused."""
        return attestation.statement(self.files)

    def with_files(self, more: Mapping[str, bytes]) -> Unit:
        """The unit and these files."""
        return Unit({**self.files, **more})


def of(catalogue: Catalogue, name: str, image: Image, manifests: Mapping[str, bytes]) -> Unit:
    """The unit of a service, without statement and signatures; `manifests` has its image's by architecture."""
    service = catalogue.services[name]
    folder = catalogue.folder / name
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    images = {
        architecture: {
            "repository": image.repository,
            "tag": image.tag,
            "digest": image.digest(architecture),
            "licence": image.licence,
        }
        for architecture in sorted(manifests)
    }
    about = {
        "version": 1,
        "name": name,
        "image": service.image,
        "summary": service.summary,
        "tier": service.tier,
        "trust": service.trust,
        "images": images,
    }
    files |= {f"{attestation.IMAGES}{arch}.json": content for arch, content in manifests.items()}
    return Unit({**files, attestation.MANIFEST: _text(about)})


def stated(unit: Unit, who: Mapping[str, str], when: str, why: str, intent: str, replaces: str | None) -> Unit:
    """The unit with its statement: an in-toto statement with a SLSA provenance predicate, and kOS's custody in it.

    `who` has the builder's `name` and `fingerprint`; `when` is in RFC 3339.
    """
    subject = [{"name": f"kos-unit:{unit.name}", "digest": {"sha3_256": unit.id}}]
    for row in unit.manifest["images"].values():
        subject.append({"name": row["repository"], "digest": {"sha256": row["digest"].removeprefix("sha256:")}})
    custody = {"why": why, "intent": intent, "replaces": replaces, "by": dict(who), "at": when}
    predicate = {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": {"unit": unit.name, "architectures": sorted(unit.manifest["images"])},
            "resolvedDependencies": materials(unit),
        },
        "runDetails": {
            "builder": {"id": f"urn:kos:controller:{who['fingerprint']}"},
            "metadata": {"finishedOn": when},
        },
        _CUSTODY: custody,
    }
    said = {"_type": _STATEMENT, "subject": subject, "predicateType": _PROVENANCE, "predicate": predicate}
    return unit.with_files({attestation.STATEMENT: _text(said)})


def image_name(unit: Unit) -> str:
    """The name of the unit's image in an image lock. Raises UnitRefused."""
    return str(unit.manifest.get("image"))


def image(unit: Unit) -> Image:
    """The unit's image as a row of an image lock. Raises ConfigurationError for what cannot be one."""
    rows = list(unit.manifest["images"].items())
    data = {
        "repository": rows[0][1]["repository"],
        "tag": rows[0][1]["tag"],
        "digests": {architecture: row["digest"] for architecture, row in rows},
        "licence": rows[0][1]["licence"],
        "source": f"the unit {unit.id[:16]}…, imported",
    }
    return parse(Image, data, lambda _path: Place(attestation.MANIFEST))


def custody(unit: Unit) -> dict[str, Any]:
    """Who made the unit, when, why, and what it is to replace. Raises UnitRefused."""
    found: dict[str, Any] = unit.statement.get("predicate", {}).get(_CUSTODY, {})
    return found


def materials(unit: Unit) -> list[dict[str, Any]]:
    """What the images were made of, where kOS built them: packages and wheels, each with its SHA-256."""
    found: dict[str, str] = {}
    for name, content in sorted(unit.files.items()):
        if name.startswith(attestation.IMAGES):
            found.update(oci.materials(content))
    return [{"uri": uri, "digest": {"sha256": found[uri]}} for uri in sorted(found)]


def load_trust(services: Path, site: Path, own: str) -> UnitTrust:
    """Whose signatures count: the site's signers, or where it names none the controller's `own` key.

    Raises ConfigurationError.
    """
    needed: dict[Tier, int] = {}
    signers: dict[str, str] = {}
    for path in (services / TRUST, site):
        if path.is_file():
            document = read_document(path)
            read = parse(UnitTrust, document.data, document.place)
            needed |= read.needed
            signers |= {name: _key(name, line, path) for name, line in read.signers.items()}
    return UnitTrust(version=1, needed=needed, signers=signers or {"this-controller": trust.parse_key(own)[0]})


def _key(name: str, line: str, path: Path) -> str:
    try:
        return trust.parse_key(line)[0]
    except NodeError as error:
        raise ConfigurationError([Fault(str(error), None, f"signers.{name}", f"in {path}")]) from error


def verify(unit: Unit, known: UnitTrust, tiers: Iterable[str]) -> list[str]:
    """The names of the unit's trusted signers.

    `tiers` are the trust tiers that it must satisfy: its own, and the one that this controller's catalogue gives the
    service, so that no signer lowers the bar alone. Raises UnitRefused.
    """
    attestation.check_integrity(unit.files)
    needed = max((count for tier, count in known.needed.items() if tier in set(tiers)), default=1)
    return attestation.check_signers(unit.files, known.signers, needed)


def _text(data: Any) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
