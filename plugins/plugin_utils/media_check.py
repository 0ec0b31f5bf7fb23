# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a medium is what somebody trusted has signed: every byte, or where it is not."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..module_utils.node import trust
from . import media
from . import partition_table as table
from .chunks import Progress, digests
from .media import Manifest, NoManifest, Sealed
from .partition_table import NoTable, Table

# Only these are written to while they are media: a partition is added, and the table moves to the end of the stick.
GROWING = ("portable",)


@dataclass(frozen=True)
class Fault:
    """A part of a medium that is not as it was made: start and length in bytes, and what is wrong with it."""

    region: str
    start: int
    size: int
    said: str

    def __str__(self) -> str:
        return f"{self.region}, bytes {self.start} to {self.start + self.size - 1}: {self.said}"


@dataclass(frozen=True)
class Report:
    """What came out: the manifest where there is one, who signed it ("" when nobody trusted did), and every fault.

    `stranger` is the fingerprint of a key that signed it and is not trusted; `whole` says that all is as that key
    signed it, where somebody has read on.
    """

    sealed: Sealed | None
    signer: str
    faults: tuple[Fault, ...]
    grown: bool = False
    stranger: str = ""
    whole: bool = False

    @property
    def ok(self) -> bool:
        """Whether every byte is as a trusted signer said."""
        return not self.faults


def verify(
    path: Path, known: Mapping[str, str], progress: Progress | None = None, beside: Sealed | None = None
) -> Report:
    """Read a device or an image to its end; `known` are the public keys (``type base64``) that count, by name.

    Its manifest is the one that it carries; else `beside`, else that of the file beside it. What nobody trusted has
    signed is read no further. What lies behind the image on a longer device is not looked at. Raises OSError, and
    NoManifest for what has no manifest.
    """
    broken: list[Fault] = []
    try:
        sealed = media.read(path)
    except NoManifest as error:
        found = [Fault(error.where, error.start, error.size, str(error))] if error.where else []
        if beside is None and not media.beside(path)[0].exists():
            if not found:
                raise
            return Report(None, "", tuple(found))
        sealed = beside or media.read_beside(path)
        broken = found if sealed.manifest.place is not None else []
    signer, stranger, unsigned = _signer(sealed, known)
    if unsigned:
        return Report(sealed, "", (*broken, *unsigned), stranger=stranger)
    grown, altered = bytes_of(path, sealed, progress)
    return Report(sealed, signer, (*broken, *altered), grown)


def bytes_of(path: Path, sealed: Sealed, progress: Progress | None = None) -> tuple[bool, list[Fault]]:
    """Whether a portable stick has grown, and where it is not what its manifest says, whoever signed that."""
    grown, skipped, moved = _growth(path, sealed.manifest)
    return grown, [*moved, *_altered(path, sealed.manifest, skipped, progress)]


def _signer(sealed: Sealed, known: Mapping[str, str]) -> tuple[str, str, list[Fault]]:
    """Who of `known` signed it; else the fingerprint of who did, and what is wrong."""
    stranger = ""
    try:
        return trust.signer_of(trust.message(sealed.identity), sealed.signature, media.NAMESPACE, known), "", []
    except trust.NotSigned:
        said = "its signature is not one of this manifest: one was altered"
    except trust.Stranger as error:
        stranger = str(error)
        said = f"it is signed by {stranger}, who is not trusted here ({', '.join(sorted(known)) or 'nobody'} is)"
    return "", stranger, [Fault(media.PARTITION, sealed.manifest.place or 0, len(sealed.content), said)]


def _growth(path: Path, manifest: Manifest) -> tuple[bool, frozenset[str], list[Fault]]:
    """Whether the stick has a table of its own by now, the regions that it took, and what is wrong with it."""
    if manifest.about.output not in GROWING:
        return False, frozenset(), []
    with path.open("rb") as stream:
        try:
            found = table.read(stream.read(table.HEAD))
        except NoTable as error:
            return False, frozenset({media.TABLE}), [_table_fault(str(error))]
    if found.copy == manifest.size - table.SECTOR:
        return False, frozenset(), []
    end = max(one.start + one.size for one in manifest.partitions)
    behind = {region.name for region in manifest.regions if region.start >= end}
    return True, frozenset({media.TABLE, *behind}), _misplaced(found, manifest, end)


def _misplaced(found: Table, manifest: Manifest, end: int) -> list[Fault]:
    missing = [one.name for one in manifest.partitions if one not in found.partitions]
    inside = [one.name for one in found.partitions if one not in manifest.partitions and one.start < end]
    said = [f"the partition {name} is not where it was made" for name in missing]
    said += [f"the partition {name} lies over what was made" for name in inside]
    return [_table_fault(one) for one in said]


def _table_fault(said: str) -> Fault:
    return Fault(media.TABLE, table.BOOT_CODE, table.HEAD - table.BOOT_CODE, said)


def _altered(path: Path, manifest: Manifest, skipped: Container[str], progress: Progress | None) -> list[Fault]:
    """The chunks that are not what the manifest says."""
    wanted = [
        (region.name, piece, chunk)
        for region in manifest.regions
        if region.name not in skipped
        for piece, chunk in zip(region.pieces(), region.chunks, strict=True)
    ]
    found = digests(path, [piece for _name, piece, _chunk in wanted], progress)
    return [
        Fault(name, *piece, "it is not what was made")
        for (name, piece, chunk), digest in zip(wanted, found, strict=True)
        if digest != chunk
    ]
