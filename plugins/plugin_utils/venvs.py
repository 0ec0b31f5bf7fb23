# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service on the venv substrate: its manifest in that form, and its wheels as one artifact of the unit store. Pure.

The wheels of a service are kept, carried, verified and pruned as an image is: their artifact is an OCI manifest whose
layers are the wheels themselves, so one digest in the signed generation stands for all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import oci
from .images import BUILT, Image
from .manifest import SandboxException, Service, UnitManifest

LOCK = "requirements.lock"
# Debian 13's, for which wheels are chosen, whatever the controller runs.
PYTHON = "3.13"
GLIBC_MINOR = 41
PACKAGES = ("python3-venv",)
TITLE = "org.opencontainers.image.title"
_FOLDER = "/var/lib/kos-venvs"
_PLACE = "@venv@"
_WHEEL_TYPE = "application/vnd.pypa.wheel"
_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_WHEEL = re.compile(r"[A-Za-z0-9_.]+-[A-Za-z0-9_.+!]+(-[A-Za-z0-9_.]+){3,4}\.whl")


@dataclass(frozen=True)
class Wheel:
    """A wheel by its file name, with the digest (``sha256:…``) and size of its content."""

    name: str
    digest: str
    size: int


def image_name(service: str) -> str:
    """The name in the image lock of the service's wheels."""
    return f"{service}_wheels"


def repository(service: str) -> str:
    """The repository in the unit store of the service's wheels."""
    return f"{BUILT}/{service}-wheels"


def digest_of(service: str, images: Mapping[str, Image], architecture: str) -> str | None:
    """The digest of the service's wheels, or None where this site has not fetched them."""
    row = images.get(image_name(service))
    return row.digest(architecture) if row else None


def folder(service: str, digest: str) -> str:
    """Where on a node the wheels with that digest are installed."""
    return f"{_FOLDER}/{service}/{digest.removeprefix('sha256:')[:16]}"


def as_venv(manifest: Service, digest: str) -> Service:
    """`manifest` with its systemd units started from the environment that the wheels with `digest` make."""
    where = folder(manifest.name, digest)
    return manifest.model_copy(update={"units": [_unit(unit, where) for unit in manifest.units]})


def _unit(unit: UnitManifest, where: str) -> UnitManifest:
    reason = "what its wheels brought lies beside what packages installed"
    # Nothing of it belongs to the service's user, so that nothing it can execute can be written by it.
    room = SandboxException(directive="ExecPaths", value=f"/usr {where}", reason=reason)
    return unit.model_copy(
        update={
            "exec": (unit.exec or "").replace(_PLACE, where) or None,
            "exec_start_pre": [line.replace(_PLACE, where) for line in unit.exec_start_pre],
            "environment": {key: value.replace(_PLACE, where) for key, value in unit.environment.items()},
            "sandbox": [*(row for row in unit.sandbox if row.directive != "ExecPaths"), room],
        }
    )


def row(service: str, digest: str) -> dict[str, Any]:
    """What the generation says of the wheels."""
    where = folder(service, digest)
    return {"service": service, "repository": repository(service), "digest": digest, "venv": where}


def artifact(service: str, wheels: Iterable[Wheel]) -> tuple[bytes, bytes]:
    """The artifact's manifest and its (empty) configuration; the same wheels give the same bytes.

    Raises ValueError for a name that no wheel has.
    """
    found = sorted(wheels, key=lambda wheel: wheel.name)
    for wheel in found:
        if not _WHEEL.fullmatch(wheel.name):
            raise ValueError(f"'{wheel.name}' is no name of a wheel")
    layers = [
        {"mediaType": _WHEEL_TYPE, "digest": wheel.digest, "size": wheel.size, "annotations": {TITLE: wheel.name}}
        for wheel in found
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST_TYPE,
        "artifactType": "application/vnd.kos.wheels",
        "config": {"mediaType": _EMPTY_TYPE, "digest": oci.digest(_EMPTY), "size": len(_EMPTY)},
        "layers": layers,
        "annotations": {"org.opencontainers.image.title": image_name(service)},
    }
    return oci.canonical(manifest), _EMPTY


def wheels_of(manifest: bytes) -> list[Wheel]:
    """The wheels that an artifact consists of."""
    return [Wheel(one["annotations"][TITLE], one["digest"], one["size"]) for one in json.loads(manifest)["layers"]]


def platforms(architecture: str) -> list[str]:
    """Every platform tag of wheels that run on Debian 13 of that architecture; the newest first."""
    machine = _MACHINES[architecture]
    older = ["manylinux2014", *(["manylinux2010", "manylinux1"] if machine == "x86_64" else [])]
    tags = [f"manylinux_2_{minor}" for minor in range(GLIBC_MINOR, 4, -1)] + older
    return [f"{tag}_{machine}" for tag in tags]
