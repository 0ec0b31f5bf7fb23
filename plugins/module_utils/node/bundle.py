# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle: everything that a deploy would fetch, in one archive whose list of contents is signed.

Its manifest names each file with size, SHA-256 and SHA3-256; the signature is over the Merkle root of the manifest
and those files. So a part of a bundle is proved like the whole, and a node is sent only the parts that it lacks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote

from . import files, merkle, trust
from .files import NodeError, Root
from .system import USUAL, Source

NAMESPACE = "kos-bundle"
FORMAT = 1
MANIFEST = "manifest.json"
SIGNATURE = "signature"
# A signed APT repository; beside its packages it is small, and a node is always sent it.
REPOSITORY = "apt/"
POOL = "apt/pool/"
KEYRING = "apt/key.asc"
BLOBS = "blobs/sha256/"
# Language models travel in the bundle and are added one by one, when asked for (`kai model add --bundle`).
MODELS = "models/"
FOLDER = "bundle"
# A manifest or a signature that is larger is none of ours.
_LARGEST_HEAD = 64 * 2**20
_CHUNK = 1 << 20
_SUM = re.compile(r"[0-9a-f]{64}")


class BundleRefused(NodeError):
    """A bundle that was altered or is incomplete, that nobody trusted has signed, or that is for something else."""


class NeedParts(Exception):
    """The node lacks these files of the bundle: send them."""

    def __init__(self, paths: list[str]) -> None:
        super().__init__(f"{len(paths)} files of the bundle")
        self.paths = paths


@dataclass(frozen=True)
class Bundle:
    """A bundle whose list of contents has been proved, and the folder with those of its files that are here."""

    manifest: dict[str, Any]
    identity: str
    signer: str
    folder: str

    def blobs(self, digests: Iterable[str]) -> list[str]:
        """The paths of everything that the images named by `digests` consist of. Raises BundleRefused."""
        known = {row["digest"]: row["blobs"] for row in self.manifest["images"]}
        found: dict[str, None] = {}
        for digest in digests:
            if digest not in known:
                raise BundleRefused(f"the bundle has no image {digest[:19]}…: make it again with kai bundle build")
            found |= dict.fromkeys(BLOBS + blob[7:] for blob in known[digest])
        return list(found)

    def size(self, paths: Iterable[str]) -> int:
        """Bytes of the files `paths`."""
        known = rows(self.manifest)
        return sum(known[path]["size"] for path in paths if path in known)

    def holds(self, path: str) -> bool:
        """Whether this file of the bundle is here."""
        return os.path.exists(os.path.join(self.folder, path))


def read_manifest(content: bytes) -> dict[str, Any]:
    """The manifest as plain data. Raises BundleRefused."""
    try:
        data = json.loads(content)
        if data["format"] != FORMAT:
            raise BundleRefused(f"the bundle has format {data['format']}, and this kOS reads {FORMAT}: update kOS")
        if not all(_well_formed(row) for row in data["content"]):
            raise ValueError("content")
    except (ValueError, KeyError, TypeError) as error:
        raise BundleRefused("the bundle's manifest cannot be read: it was altered, or this is no bundle") from error
    return dict(data)


def _well_formed(row: Mapping[str, Any]) -> bool:
    sums = all(_SUM.fullmatch(row[key]) for key in ("sha256", "sha3_256"))
    return sums and isinstance(row["path"], str) and isinstance(row["size"], int)


def rows(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the manifest says of each file, by path."""
    return {row["path"]: row for row in manifest["content"]}


def identity(content: bytes) -> str:
    """The Merkle root over a manifest and the files it names. Raises BundleRefused."""
    named = [(row["path"], row["sha3_256"]) for row in read_manifest(content)["content"]]
    return merkle.root([(MANIFEST, merkle.digest(content)), *named])


def check_signer(found: str, signature: str, known: Mapping[str, str]) -> str:
    """The name of the trusted signer of the bundle with the Merkle root `found`. Raises BundleRefused."""
    what = f"the bundle {found[:12]}…"
    if not signature.strip():
        raise BundleRefused(f"{what} carries no signature: a node takes signed ones only")
    try:
        return trust.signer_of(trust.message(found), signature, NAMESPACE, known)
    except trust.NotSigned as error:
        raise BundleRefused(f"the signature of {what} is not one of its list of contents: one was altered") from error
    except trust.Stranger as error:
        trusted = ", ".join(sorted(known)) or "nobody yet"
        raise BundleRefused(
            f"{what} is signed by {error}, who is not trusted here ({trusted} is);"
            " where that key is yours: kai trust add NAME KEYFILE"
        ) from error


def check_file(row: Mapping[str, Any], source: IO[bytes], target: IO[bytes] | None = None) -> None:
    """Read a file of the bundle to its end, writing it to `target`. Raises BundleRefused where it is not `row`'s."""
    sha256, sha3, size = hashlib.sha256(), hashlib.sha3_256(), 0
    # What is too long is found before it fills the disk.
    while size <= row["size"] and (chunk := source.read(_CHUNK)):
        sha256.update(chunk)
        sha3.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    if (size, sha256.hexdigest(), sha3.hexdigest()) != (row["size"], row["sha256"], row["sha3_256"]):
        raise BundleRefused(
            f"{row['path']} of the bundle is not what its signed list says: copy the bundle again, or make it again"
        )


def receive(root: Root, archives: Iterable[str], folder: str, known: Mapping[str, str]) -> Bundle:
    """Prove and keep what was sent: first the manifest, the signature and the repository's index, then any parts.

    `known` are the signers that count. The index and the packages go to `folder`, blobs of images to the node's
    store. Raises BundleRefused, OSError.
    """
    bundle: Bundle | None = None
    try:
        for archive in archives:
            with tarfile.open(archive, mode="r|") as tar:
                if bundle is None:
                    bundle = _head(tar, folder, known)
                    _clear(bundle)
                _take(root, tar, bundle)
    except (tarfile.TarError, EOFError) as error:
        raise BundleRefused(f"what was sent of the bundle cannot be read: {error}") from error
    if bundle is None:
        raise BundleRefused("nothing of the bundle was sent")
    files.write(os.path.join(folder, "kos.sources"), _sources(_seen(root, folder)).encode())
    files.make_directory(os.path.join(folder, "lists", "partial"))
    return bundle


def _head(tar: tarfile.TarFile, folder: str, known: Mapping[str, str]) -> Bundle:
    manifest, signature = (_small(tar, name) for name in (MANIFEST, SIGNATURE))
    found = identity(manifest)
    signer = check_signer(found, signature.decode(errors="replace"), known)
    return Bundle(read_manifest(manifest), found, signer, folder)


def _clear(bundle: Bundle) -> None:
    """Remove what an earlier bundle left, but for packages that this one has too: a fallback may need them."""
    known = rows(bundle.manifest)
    for folder, _folders, names in os.walk(bundle.folder):
        for name in names:
            path = os.path.join(folder, name)
            row = known.get(os.path.relpath(path, bundle.folder))
            if row is None or not row["path"].startswith(POOL) or not _is(row, path):
                files.remove(path)


def _is(row: Mapping[str, Any], path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            check_file(row, stream)
    except (BundleRefused, OSError):
        return False
    return True


def _small(tar: tarfile.TarFile, name: str) -> bytes:
    """The next member, which must be `name`."""
    member = tar.next()
    if member is None or member.name != name or not member.isreg() or member.size > _LARGEST_HEAD:
        raise BundleRefused(f"this is no bundle: {name} is not where it belongs")
    stream = tar.extractfile(member)
    return stream.read() if stream else b""


def _take(root: Root, tar: tarfile.TarFile, bundle: Bundle) -> None:
    known = rows(bundle.manifest)
    while (member := tar.next()) is not None:
        row = known.get(member.name)
        source = tar.extractfile(member) if member.isreg() and row else None
        if row is None or source is None:
            raise BundleRefused(f"the bundle's signed list does not name '{member.name}': it was put there later")
        path = _place(root, bundle, row)
        files.make_directory(os.path.dirname(path))
        hidden = f"{path}.kos-new"
        try:
            with open(hidden, "wb") as target:
                check_file(row, source, target)
                os.fchmod(target.fileno(), 0o644)
                os.fsync(target.fileno())
            os.rename(hidden, path)
        finally:
            files.remove(hidden)


def _place(root: Root, bundle: Bundle, row: Mapping[str, Any]) -> str:
    """Where a file belongs; a signed name is believed only as far as it stays inside."""
    path = str(row["path"])
    if path.startswith(BLOBS) and path[len(BLOBS) :] == row["sha256"]:
        return root.state("images", path)
    if not path.startswith(REPOSITORY) or ".." in path.split("/"):
        raise BundleRefused(f"the bundle holds '{path}', which is nothing that a node takes")
    return os.path.join(bundle.folder, path)


def check_architecture(bundle: Bundle, architecture: str) -> None:
    """Raises BundleRefused where the bundle was made for other machines."""
    made = bundle.manifest["architecture"]
    if made != architecture:
        raise BundleRefused(f"the bundle is for {made}, and this node is {architecture}: make one for it with --arch")


def check_purpose(bundle: Bundle, generation: str, needs: Mapping[str, Iterable[str]]) -> None:
    """Raises BundleRefused where the bundle lacks packages or images (`needs`) that `generation` asks for by name."""
    if lacks(bundle.manifest, generation, needs):
        raise BundleRefused(
            f"the bundle was not made for the generation {generation[:12]}…: make one with kai bundle build,"
            " with the same profile and layers"
        )


def lacks(manifest: Mapping[str, Any], generation: str, needs: Mapping[str, Iterable[str]]) -> list[str]:
    """What `needs` names and the generations of the bundle do not; other settings alone ask for nothing new."""
    made = manifest["generations"]
    if generation in {row["id"] for row in made}:
        return []
    held = {kind: {name for row in made for name in row[kind]} for kind in ("packages", "images")}
    return sorted(name for kind, names in held.items() for name in needs[kind] if name not in names)


def image_rows(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The images of a generation and of everything that it may move to."""
    return [*manifest.get("images", []), *(row for move in manifest.get("alternatives", []) for row in move["images"])]


def needs(manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """The packages and images that a generation asks for by name."""
    images = {f"{row['repository']}@{row['digest']}" for row in image_rows(manifest)}
    return {"packages": sorted(manifest["packages"]), "images": sorted(images)}


def folder_of(root: Root) -> str:
    """Where a bundle lies from the stage of a transaction to its end."""
    return root.state(FOLDER)


def source_of(root: Root, folder: str | None = None) -> Source:
    """Where apt takes packages from: the bundle of the open transaction (or in `folder`), else the usual sources."""
    folder = folder or folder_of(root)
    if not os.path.exists(os.path.join(folder, "kos.sources")):
        return USUAL
    where = _seen(root, folder)
    settings = (
        f"Dir::Etc::sourcelist={where}/kos.sources",
        "Dir::Etc::sourceparts=/dev/null",
        f"Dir::State::lists={where}/lists",
        "Dir::Cache::pkgcache=",
        "Dir::Cache::srcpkgcache=",
        # The clock of a machine without a network may be wrong; what is here was proved by its signature.
        "Acquire::Check-Date=false",
        "Acquire::Languages=none",
    )
    return Source(
        tuple(word for setting in settings for word in ("-o", setting)),
        local=True,
        hint="the bundle lacks them, or this node has newer ones: make it again with kai bundle build",
    )


def path_of(uri: str) -> str:
    """The bundle's name for the file that apt would read as `uri`."""
    return POOL + unquote(uri).partition(f"/{POOL}")[2]


def forget(root: Root) -> None:
    """Remove what lies here of a bundle; images that came with it are in the node's own store."""
    shutil.rmtree(folder_of(root), ignore_errors=True)


def _seen(root: Root, path: str) -> str:
    """`path` as apt sees it, which runs inside the root."""
    return "/" + os.path.relpath(path, root.path)


def _sources(folder: str) -> str:
    return f"Types: deb\nURIs: file:{folder}/apt\nSuites: ./\nSigned-By: {folder}/{KEYRING}\n"
