# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle on the controller: write one, read one, prove one, and take out of one what a node lacks."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..module_utils.node import bundle as sealed
from ..module_utils.node import trust
from ..module_utils.node.bundle import BundleRefused
from . import oci
from .signing import Signer

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Content:
    """A file that goes into a bundle: its path in there, and where it is now."""

    path: str
    source: Path

    def row(self) -> dict[str, Any]:
        """What the manifest says of it."""
        sha256, sha3 = hashlib.sha256(), hashlib.sha3_256()
        with self.source.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                sha256.update(chunk)
                sha3.update(chunk)
        size = self.source.stat().st_size
        return {"path": self.path, "size": size, "sha256": sha256.hexdigest(), "sha3_256": sha3.hexdigest()}


def write(path: Path, about: Mapping[str, Any], contents: Iterable[Content], signer: Signer) -> str:
    """Write a bundle, signed, whole or not at all; returns its Merkle root. Raises SigningFailed, OSError.

    `about` is the manifest without its list of contents.
    """
    ordered = sorted(contents, key=lambda one: one.path)
    rows = [one.row() for one in ordered]
    manifest = oci.canonical({**about, "format": sealed.FORMAT, "content": rows})
    found = sealed.identity(manifest)
    signature = signer.sign_content(trust.message(found), sealed.NAMESPACE).encode()
    unfinished = path.with_name(f".{path.name}.new")
    try:
        with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, sealed.MANIFEST, len(manifest), io.BytesIO(manifest))
            _add(tar, sealed.SIGNATURE, len(signature), io.BytesIO(signature))
            for one, row in zip(ordered, rows, strict=True):
                with one.source.open("rb") as stream:
                    _add(tar, one.path, row["size"], stream)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return found


def _add(tar: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    """A member that is the same whoever writes it, and whenever."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    tar.addfile(info, content)


@dataclass(frozen=True)
class Bundle:
    """An open bundle; of its files only the manifest has been looked at."""

    path: Path
    manifest: dict[str, Any]
    identity: str
    signature: str
    tar: tarfile.TarFile

    def verify(self, known: Mapping[str, str]) -> str:
        """The name of the trusted signer, once every file is proved. Raises BundleRefused."""
        signer = sealed.check_signer(self.identity, self.signature, known)
        for name, row in sealed.rows(self.manifest).items():
            sealed.check_file(row, self._stream(name))
        return signer

    def extract(self, name: str, known: Mapping[str, str], target: IO[bytes]) -> dict[str, Any]:
        """Write one proved file of the bundle to `target`; returns its row. Raises BundleRefused."""
        sealed.check_signer(self.identity, self.signature, known)
        row = sealed.rows(self.manifest).get(name)
        if row is None:
            folder = name.partition("/")[0] + "/"
            there = [path.removeprefix(folder) for path in sealed.rows(self.manifest) if path.startswith(folder)]
            raise BundleRefused(f"{self.path} has no {name} (it has: {', '.join(there) or 'none'})")
        sealed.check_file(row, self._stream(name), target)
        return row

    def head(self, target: IO[bytes]) -> None:
        """Write what a node needs before it can say what it lacks: the signed list and the repository's index."""
        index = [name for name in sealed.rows(self.manifest) if _is_index(name)]
        self.parts([sealed.MANIFEST, sealed.SIGNATURE, *index], target)

    def parts(self, names: Iterable[str], target: IO[bytes]) -> None:
        """Write these files of the bundle as an archive for a node. Raises BundleRefused where one is missing."""
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in names:
                _add(tar, name, self.tar.getmember(name).size, self._stream(name))

    def _stream(self, name: str) -> IO[bytes]:
        stream = self.tar.extractfile(name)
        if stream is None:
            raise BundleRefused(f"{self.path}: {name} is no file: the bundle was altered")
        return stream


def _is_index(name: str) -> bool:
    return name.startswith(sealed.REPOSITORY) and not name.startswith(sealed.POOL)


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """The bundle at `path`. Raises BundleRefused for what is none, or not whole."""
    try:
        with tarfile.open(path, "r:") as tar:
            yield _read(path, tar)
    except FileNotFoundError as error:
        raise BundleRefused(f"there is no bundle {path}: kai bundle build makes one") from error
    except (tarfile.TarError, EOFError) as error:
        raise BundleRefused(_cut_short(path)) from error


def _read(path: Path, tar: tarfile.TarFile) -> Bundle:
    content, signature = (_start(path, tar, name) for name in (sealed.MANIFEST, sealed.SIGNATURE))
    manifest, names = sealed.read_manifest(content), set(tar.getnames())
    rows = sealed.rows(manifest)
    last = tar.getmembers()[-1]
    if rows.keys() - names or path.stat().st_size < last.offset_data + last.size:
        raise BundleRefused(_cut_short(path))
    added = sorted(names - rows.keys() - {sealed.MANIFEST, sealed.SIGNATURE})
    if added:
        raise BundleRefused(f"the bundle's signed list does not name '{added[0]}': it was put there later")
    return Bundle(path, manifest, sealed.identity(content), signature.decode(errors="replace"), tar)


def _start(path: Path, tar: tarfile.TarFile, name: str) -> bytes:
    """The next member, which must be `name`."""
    member = tar.next()
    stream = tar.extractfile(member) if member is not None and member.name == name else None
    if stream is None:
        raise BundleRefused(f"{path} is no bundle: {name} is not where it belongs")
    return stream.read()


def _cut_short(path: Path) -> str:
    return f"{path} is not whole: it was cut short on its way, or is no bundle: copy it again"


def generation_row(identity: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a bundle says of a generation that it was made for: enough to tell another one from it."""
    return {
        "id": identity,
        "profile": manifest["profile"],
        "environment": manifest["environment"],
        "services": sorted(service["name"] for service in manifest["services"]),
        **sealed.needs(manifest),
    }


def refusal(bundle: Bundle, wanted: Mapping[str, Any]) -> str | None:
    """Why the generation `wanted` (a `generation_row`) cannot be deployed from this bundle, or None."""
    made = bundle.manifest["generations"]
    if not sealed.lacks(bundle.manifest, wanted["id"], wanted):
        return None
    nearest = min(made, key=lambda row: len(list(_differences(row, wanted))))
    said = "; ".join(_differences(nearest, wanted))
    return (
        f"the bundle was made for the generation {nearest['id'][:12]}… of {nearest['profile']}, and this deploy is"
        f" {wanted['id'][:12]}… of {wanted['profile']}: {said}. Deploy with the profile and layers it was made with,"
        f" or make another: kai bundle build --profile {wanted['profile']} --output FILE"
    )


def _differences(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for key in ("profile", "environment"):
        if made[key] != wanted[key]:
            yield f"{key} {made[key]} in the bundle, {wanted[key]} here"
    for key in ("services", "packages", "images"):
        here, there = set(wanted[key]), set(made[key])
        yield from _listed(f"the bundle lacks the {key}", here - there)
        yield from _listed(f"only the bundle has the {key}", there - here)


def _listed(what: str, names: set[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        yield f"{what} {', '.join(sorted(names)[:4])}{more}"
