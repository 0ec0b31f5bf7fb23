# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a medium: what it is, and the SHA3-256 of every byte of it, in chunks; signed.

It lies in a partition of its own on media that nothing writes to (a live stick), and beside the image of every other.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from ..module_utils.node import merkle, trust
from . import partition_table as table
from .chunks import CHUNK, Progress, digests
from .partition_table import NoTable, Partition
from .signing import Signer

NAMESPACE = "kos-medium"
FORMAT = 1
PARTITION = "kos-manifest"
PARTITION_SIZE = 1 << 20
BOOT_CODE, TABLE, TABLE_COPY = "boot code", "partition table", "copy of the partition table"
_MAGIC = b"KOSMEDIA"
# Magic, lengths of manifest and signature, SHA3-256 of both: an altered bit of an armoured signature may mean the same.
_HEAD = struct.Struct("<8sII32s")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST = (1 << 63) - 1  # of a file, for the kernel


class NoManifest(Exception):
    """There is no manifest that can be read; the text says why, and `where` (start, size) what was found broken."""

    def __init__(self, said: str, where: str = "", start: int = 0, size: int = 0) -> None:
        super().__init__(said)
        self.where, self.start, self.size = where, start, size


@dataclass(frozen=True)
class About:
    """What a medium is: `made` in seconds since 1970, `lock` the digest of its package lock."""

    profile: str
    output: str
    architecture: str
    made: int
    lock: str
    roothash: str = ""


@dataclass(frozen=True)
class Region:
    """A part of the image, from `start` on (bytes), and the SHA3-256 of each of its chunks."""

    name: str
    start: int
    size: int
    chunks: tuple[str, ...] = ()

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Start and length of each chunk."""
        end = self.start + self.size
        return ((at, min(CHUNK, end - at)) for at in range(self.start, end, CHUNK))


@dataclass(frozen=True)
class Manifest:
    """All that is known of a medium; `place` is where the manifest itself lies, or None for one beside its image."""

    about: About
    size: int
    place: int | None
    partitions: tuple[Partition, ...]
    regions: tuple[Region, ...]

    def content(self) -> bytes:
        """The canonical JSON that is hashed and signed."""
        data = {"format": FORMAT, "chunk": CHUNK, **asdict(self)}
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


@dataclass(frozen=True)
class Sealed:
    """A manifest as bytes, with the armoured signature of its Merkle root."""

    content: bytes
    signature: str
    manifest: Manifest = field(repr=False)

    @property
    def identity(self) -> str:
        """The Merkle root over the manifest and every chunk that it names."""
        return _identity(self.content, self.manifest)


def describe(image: Path, about: About, signer: Signer, progress: Progress | None = None) -> Sealed:
    """The signed manifest of an image, which is read once. Raises OSError, SigningFailed."""
    size = image.stat().st_size
    with image.open("rb") as stream:
        head = stream.read(table.HEAD)
    try:
        partitions = table.read(head).partitions
    except NoTable:
        # Not laid out as a disk (qcow2): one region, and nothing that could carry its manifest.
        partitions = ()
    bare = _regions(size, partitions)
    found = digests(image, [piece for region in bare for piece in region.pieces()], progress)
    regions = tuple(replace(one, chunks=tuple(next(found) for _piece in one.pieces())) for one in bare)
    place = next((one.start for one in partitions if one.name == PARTITION), None)
    manifest = Manifest(about, size, place, partitions, regions)
    content = manifest.content()
    signature = signer.sign_content(trust.message(_identity(content, manifest)), NAMESPACE)
    return Sealed(content, signature, manifest)


def _regions(size: int, partitions: Iterable[Partition]) -> list[Region]:
    """What together is every byte of the image but the manifest's own partition."""
    named = [Region(one.name, one.start, one.size) for one in partitions]
    if not named:
        return [Region("image", 0, size)]
    named += [
        Region(BOOT_CODE, 0, table.BOOT_CODE),
        Region(TABLE, table.BOOT_CODE, table.HEAD - table.BOOT_CODE),
        Region(TABLE_COPY, size - table.TAIL, table.TAIL),
    ]
    found: list[Region] = []
    at = 0
    for one in sorted(named, key=lambda region: region.start):
        if one.start > at:
            found.append(Region(f"space before {one.name}", at, one.start - at))
        found.append(one)
        at = one.start + one.size
    return [one for one in found if one.name != PARTITION]


def _identity(content: bytes, manifest: Manifest) -> str:
    leaves = [
        (f"{one.name}/{number:08d}", chunk) for one in manifest.regions for number, chunk in enumerate(one.chunks)
    ]
    return merkle.root([("manifest.json", merkle.digest(content)), *leaves])


def parse(content: bytes, signature: bytes) -> Sealed:
    """A manifest and its signature as they were written. Nothing is proved. Raises NoManifest."""
    try:
        data = json.loads(content)
        if (data["format"], data["chunk"]) != (FORMAT, CHUNK):
            raise NoManifest(f"the manifest has format {data['format']}, and this kOS reads {FORMAT}: update kOS")
        regions = tuple(Region(**{**row, "chunks": tuple(row["chunks"])}) for row in data["regions"])
        partitions = tuple(Partition(**row) for row in data["partitions"])
        manifest = Manifest(About(**data["about"]), data["size"], data["place"], partitions, regions)
        if manifest.content() != content or not _plausible(manifest):
            raise ValueError("not canonical")
        return Sealed(content, signature.decode(), manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoManifest("the manifest cannot be read: it was altered, or is none") from error


def _plausible(manifest: Manifest) -> bool:
    """Whether all has its type and lies within the image: anybody may have written this, and nobody signed it."""
    size, place = manifest.size, manifest.place
    parts: list[Partition | Region] = [*manifest.partitions, *manifest.regions]
    return (
        all(map(_typed, (manifest, manifest.about, *parts)))
        and size <= _LONGEST
        and all(one.start + one.size <= size for one in parts)
        and (place is None or (_amount(place) and place + PARTITION_SIZE <= size))
        and all(len(one.chunks) == -(-one.size // CHUNK) for one in manifest.regions)
        and all(_DIGEST.fullmatch(chunk) for one in manifest.regions for chunk in one.chunks)
    )


def _typed(row: Manifest | About | Partition | Region) -> bool:
    """Whether a row's texts are printable ones and its numbers are whole and not negative."""
    texts, numbers = ([getattr(row, one.name) for one in fields(row) if one.type == kind] for kind in ("str", "int"))
    return all(isinstance(one, str) and one.isprintable() for one in texts) and all(map(_amount, numbers))


def _amount(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def embed(image: Path, sealed: Sealed) -> None:
    """Write the manifest into its partition of the image. Raises OSError, NoManifest where it does not fit."""
    place, signature = sealed.manifest.place, sealed.signature.encode()
    both = sealed.content + signature
    head = _HEAD.pack(_MAGIC, len(sealed.content), len(signature), hashlib.sha3_256(both).digest())
    if place is None:
        raise NoManifest(f"{image.name} has no partition {PARTITION} for its manifest")
    if len(head) + len(both) > PARTITION_SIZE:
        raise NoManifest(f"the manifest of {image.name} is larger than its partition: the medium holds too much")
    with image.open("r+b") as stream:
        stream.seek(place)
        stream.write((head + both).ljust(PARTITION_SIZE, b"\0"))


def extract(block: bytes) -> Sealed:
    """The manifest in its partition, of which each bit is looked at. Raises NoManifest."""
    magic, length, signature_length, digest = _HEAD.unpack(block[: _HEAD.size].ljust(_HEAD.size, b"\0"))
    end = _HEAD.size + length + signature_length
    if magic != _MAGIC or len(block) != PARTITION_SIZE or end > PARTITION_SIZE:
        raise NoManifest("its head was altered, or there is none")
    if hashlib.sha3_256(block[_HEAD.size : end]).digest() != digest:
        raise NoManifest("the manifest or its signature was altered")
    if any(block[end:]):
        raise NoManifest("what follows the manifest is not empty: it was altered")
    return parse(block[_HEAD.size : _HEAD.size + length], block[_HEAD.size + length : end])


def read(path: Path) -> Sealed:
    """The manifest that a medium carries: a device or an image. Raises OSError, NoManifest."""
    with path.open("rb") as stream:
        try:
            head = stream.read(table.HEAD)
            partitions = table.read(head).partitions
        except NoTable as error:
            if not table.traced(head):
                raise NoManifest("it is not laid out as a disk") from error
            raise NoManifest(str(error), TABLE, table.BOOT_CODE, table.HEAD - table.BOOT_CODE) from error
        place = next((one.start for one in partitions if one.name == PARTITION), None)
        if place is None:
            raise NoManifest(f"it has no partition {PARTITION}")
        stream.seek(place)
        block = stream.read(PARTITION_SIZE)
    try:
        sealed = extract(block)
        if sealed.manifest.place != place:
            raise NoManifest("it is that of another medium")
    except NoManifest as error:
        raise NoManifest(str(error), PARTITION, place, PARTITION_SIZE) from error
    return sealed


def beside(image: Path) -> tuple[Path, Path]:
    """Where the manifest of an image and its signature lie beside it."""
    return image.with_name(f"{image.name}.manifest.json"), image.with_name(f"{image.name}.manifest.json.sig")


def write_beside(image: Path, sealed: Sealed) -> None:
    """Write the manifest and its signature beside the image. Raises OSError."""
    for path, content in zip(beside(image), (sealed.content, sealed.signature.encode()), strict=True):
        path.write_bytes(content)


def read_beside(image: Path) -> Sealed:
    """The manifest that lies beside an image. Raises NoManifest, OSError."""
    path, signature = beside(image)
    try:
        return parse(path.read_bytes(), signature.read_bytes())
    except FileNotFoundError as error:
        raise NoManifest(f"it carries no manifest, and {error.filename} is not there: copy it along") from error
