# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit store: an OCI image layout directory with the images that this controller built, pulled or imported.

``$KOS_UNIT_STORE`` names another directory. An image's entry in the index has the reference
``repository@sha256:…``, so that skopeo finds it as ``oci:STORE:repository@sha256:…``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from . import oci

VARIABLE = "KOS_UNIT_STORE"
REFERENCE = "org.opencontainers.image.ref.name"
_LAYOUT = {"imageLayoutVersion": "1.0.0"}
_PIECE = 1 << 20


class StoreBroken(Exception):
    """The store lacks something or holds something else than its name says; the text says what and what to do."""


def store_path() -> Path:
    """The directory of the store, which need not exist."""
    named = os.environ.get(VARIABLE)
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(named) if named else Path(base) / "kos/units"


@dataclass(frozen=True)
class Stored:
    """An image of the store: its reference without the digest, its manifest's digest, its architecture."""

    repository: str
    digest: str
    architecture: str


def blob_path(store: Path, digest: str) -> Path:
    """Where the content named `digest` is, or would be."""
    return store / "blobs" / digest.replace(":", "/")


def read_blob(store: Path, digest: str) -> bytes:
    """The content named `digest`, compared with that name. Raises StoreBroken."""
    try:
        content = blob_path(store, digest).read_bytes()
    except FileNotFoundError as error:
        raise StoreBroken(f"the unit store has no {digest}: build or import the image again") from error
    if oci.digest(content) != digest:
        raise StoreBroken(f"{blob_path(store, digest)} was altered: remove it, and build or import the image again")
    return content


def put_blob(store: Path, content: bytes) -> str:
    """Keep `content`; returns its digest."""
    with new_blob(store) as stream:
        stream.write(content)
    return oci.digest(content)


@contextmanager
def new_blob(store: Path) -> Iterator[IO[bytes]]:
    """A stream whose content is kept under its own digest once it is complete."""
    folder = store / "blobs/sha256"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=folder)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        Path(name).chmod(0o644)
        Path(name).rename(folder / digest)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def add_image(store: Path, repository: str, manifest: bytes, architecture: str) -> Stored:
    """Enter an image whose blobs are there into the index. Raises StoreBroken where one is missing."""
    for described in parts(json.loads(manifest)):
        if not blob_path(store, described["digest"]).is_file():
            raise StoreBroken(f"{repository} is not complete: {described['digest']} is missing")
    digest = put_blob(store, manifest)
    entry = {
        "mediaType": oci.MANIFEST_TYPE,
        "digest": digest,
        "size": len(manifest),
        "platform": {"architecture": architecture, "os": "linux"},
        "annotations": {REFERENCE: f"{repository}@{digest}"},
    }
    with locked(store):
        others = [row for row in _index(store) if row.get("annotations") != entry["annotations"]]
        rows = sorted([*others, entry], key=lambda row: str(row["annotations"]))
        _write(store / "index.json", {"schemaVersion": 2, "mediaType": oci.INDEX_TYPE, "manifests": rows})
        _write(store / "oci-layout", _LAYOUT)
    return Stored(repository, digest, architecture)


def parts(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The descriptors of what an image consists of: its configuration, then its layers."""
    return [manifest["config"], *manifest["layers"]]


def images(store: Path) -> list[Stored]:
    """Every image of the store. Raises StoreBroken for an index that cannot be read."""
    found = []
    for row in _index(store):
        repository = row.get("annotations", {}).get(REFERENCE, "").partition("@")[0]
        found.append(Stored(repository, row["digest"], row.get("platform", {}).get("architecture", "")))
    return found


def verify_image(store: Path, digest: str) -> int:
    """Compare every blob of an image with its name; returns the image's size in bytes. Raises StoreBroken."""
    manifest = read_blob(store, digest)
    total = len(manifest)
    for described in parts(json.loads(manifest)):
        path = blob_path(store, described["digest"])
        if not path.is_file():
            raise StoreBroken(f"the unit store has no {described['digest']}: build or import the image again")
        with path.open("rb") as stream:
            if f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}" != described["digest"]:
                raise StoreBroken(f"{path} was altered: remove it, and build or import the image again")
        total += path.stat().st_size
    return total


def write_blobs(store: Path, digests: Iterable[str], target: IO[bytes]) -> list[str]:
    """Write, as a tar archive, every blob of those images of `digests` that the store holds; returns which.

    Raises StoreBroken for an image of which something is missing.
    """
    found, written = [], set()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for digest in digests:
            if not blob_path(store, digest).is_file():
                continue
            found.append(digest)
            for name in [digest, *(row["digest"] for row in parts(json.loads(read_blob(store, digest))))]:
                if name not in written:
                    written.add(name)
                    tar.add(blob_path(store, name), f"blobs/{name.replace(':', '/')}")
    return found


def _index(store: Path) -> list[dict[str, Any]]:
    path = store / "index.json"
    if not path.is_file():
        return []
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["manifests"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreBroken(f"{path} is no index of images: move it away, and build or import them again") from error
    return rows


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time goes on in here; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: dict[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_bytes(oci.canonical(data) + b"\n")
    unfinished.rename(path)
