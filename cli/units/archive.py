# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unit as one file: a tar with the unit's files below ``unit/`` and its images' blobs below ``blobs/sha256/``."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...plugins.module_utils.node.attestation import IMAGES, UnitRefused
from ...plugins.plugin_utils import oci, unit_store
from ...plugins.plugin_utils.container_units import Unit

SUFFIX = ".kosunit"
_FILE = re.compile(r"unit/(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._/@:+-]+")
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_MAX_FILE = 4 << 20
_MAX_FILES = 1000


@dataclass(frozen=True)
class Opened:
    """An archive whose files were read and whose blobs lie, each proved by its digest, in `folder`."""

    unit: Unit
    folder: Path


def write(unit: Unit, store: Path, target: Path) -> int:
    """Write the unit and its images to `target`; returns its size. Equal units give equal bytes. Raises StoreBroken."""
    unfinished = target.with_name(f".{target.name}.new")
    try:
        with tarfile.open(unfinished, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in sorted(unit.files.items()):
                tar.addfile(_member(f"unit/{name}", len(content)), io.BytesIO(content))
            for digest in sorted(blobs(unit)):
                path = unit_store.blob_path(store, digest)
                if not path.is_file():
                    raise unit_store.StoreBroken(f"the unit store has no {digest}: build or import the image again")
                with path.open("rb") as stream:
                    tar.addfile(_member(f"blobs/{digest.replace(':', '/')}", path.stat().st_size), stream)
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target.stat().st_size


def blobs(unit: Unit) -> set[str]:
    """The digests of every blob of the unit's images, their manifests included."""
    found = set()
    for manifest in manifests(unit).values():
        found |= {oci.digest(manifest), *(row["digest"] for row in unit_store.parts(json.loads(manifest)))}
    return found


def manifests(unit: Unit) -> dict[str, bytes]:
    """The OCI manifest of the unit's image by architecture. Raises UnitRefused where one is not the image named."""
    found = {}
    for architecture, row in unit.manifest["images"].items():
        content = unit.files.get(f"{IMAGES}{architecture}.json", b"")
        if oci.digest(content) != row["digest"]:
            raise UnitRefused(f"the image of the unit {unit.name} for {architecture} is not {row['digest'][:19]}…")
        found[architecture] = content
    return found


@contextmanager
def opened(path: Path, beside: Path) -> Iterator[Opened]:
    """An archive, read and with the digest of every blob compared; nothing of it is kept afterwards.

    Its blobs lie in a folder next to `beside`, on the same file system. Raises UnitRefused, OSError.
    """
    beside.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".import-", dir=beside))
    try:
        files, found = _unpacked(path, folder)
        unit = Unit(files)
        missing = blobs(unit) - found
        if missing:
            raise UnitRefused(f"{path.name} is not complete: it lacks {len(missing)} parts of its images")
        if found - blobs(unit):
            raise UnitRefused(f"{path.name} holds parts of images that the unit {unit.name} does not name")
        yield Opened(unit, folder)
    finally:
        shutil.rmtree(folder)


def _unpacked(path: Path, folder: Path) -> tuple[Mapping[str, bytes], set[str]]:
    files: dict[str, bytes] = {}
    found: set[str] = set()
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                blob = _BLOB.fullmatch(member.name)
                if stream is not None and blob:
                    _keep(stream, folder / blob[1], blob[1], path)
                    found.add(f"sha256:{blob[1]}")
                elif (
                    stream is not None
                    and _FILE.fullmatch(member.name)
                    and member.size <= _MAX_FILE
                    and len(files) < _MAX_FILES
                ):
                    files[member.name.removeprefix("unit/")] = stream.read()
                else:
                    raise UnitRefused(f"{path.name} holds '{member.name[:80]}', which is no part of a unit")
    except (tarfile.TarError, EOFError) as error:
        raise UnitRefused(f"{path.name} is no unit archive, or is cut short: {error}") from error
    return files, found


def _keep(source: IO[bytes], target: Path, digest: str, path: Path) -> None:
    found = hashlib.sha256()
    with target.open("wb") as stream:
        while piece := source.read(1 << 20):
            found.update(piece)
            stream.write(piece)
    if found.hexdigest() != digest:
        raise UnitRefused(f"an image in {path.name} was altered: a part of it is not sha256:{digest[:12]}…")


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member
