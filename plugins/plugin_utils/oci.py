# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OCI images as bytes: one deterministic layer, configuration and manifest. The same input gives the same digest."""

from __future__ import annotations

import copy
import fnmatch
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

# What an image that kOS built was made of: package URLs and SHA-256, as JSON.
MATERIALS = "kos.materials"

# What an ordinary user unpacks has other modes than what root does, so they are said anew: a layer is content and
# permission to run it, and nothing in it gives whoever runs it another user's rights.
_PLAIN, _RUNNABLE, _SHARED = 0o644, 0o755, 0o1777
_SHARED_DIRECTORIES = ("tmp", "var/tmp")
_KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)


@dataclass(frozen=True)
class Entry:
    """One path of a layer, and what opens its content; `info.name` is relative, without a leading ``./``."""

    info: tarfile.TarInfo
    content: Callable[[], IO[bytes]] | None = None


@dataclass(frozen=True)
class Layer:
    """A layer that was written: digests with ``sha256:``; `diff_id` is that of the tar before compression."""

    digest: str
    size: int
    diff_id: str


def entries_of(archive: tarfile.TarFile) -> list[Entry]:
    """The files, directories and links of a tar; devices, sockets and pipes stay behind."""
    found = []
    for member in archive.getmembers():
        name = member.name.removeprefix("./").rstrip("/")
        if name in ("", ".") or member.type not in _KINDS:
            continue
        info = copy.copy(member)
        info.name = name
        if member.islnk():
            # Sorted, a hard link could come before its file, or without it: it becomes a file of its own.
            info.type, info.linkname, info.size = tarfile.REGTYPE, "", archive.getmember(member.linkname).size
        found.append(Entry(info, _opener(archive, member) if info.isreg() else None))
    return found


def _opener(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    return lambda: cast("IO[bytes]", archive.extractfile(member))


def file_entry(path: str, content: bytes, mode: int = 0o644) -> Entry:
    """A file with this content."""
    info = tarfile.TarInfo(path.lstrip("/"))
    info.size, info.mode = len(content), mode
    return Entry(info, lambda: io.BytesIO(content))


def file_on_disk(name: str, path: Path, mode: int) -> Entry:
    """A file whose content is that of `path`, read when the layer is written."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = path.stat().st_size, mode
    return Entry(info, lambda: path.open("rb"))


def link_entry(path: str, target: str) -> Entry:
    """A symbolic link."""
    info = tarfile.TarInfo(path.lstrip("/"))
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    return Entry(info)


def left(entries: Iterable[Entry], patterns: Sequence[str]) -> list[Entry]:
    """The entries that no pattern names, neither themselves nor a directory above them."""
    known: dict[str, bool] = {"": False}

    def gone(name: str) -> bool:
        if name not in known:
            known[name] = gone(name.rpartition("/")[0]) or any(_matches(name, pattern) for pattern in patterns)
        return known[name]

    return [entry for entry in entries if not gone(entry.info.name)]


def _matches(name: str, pattern: str) -> bool:
    """As in a shell: no wildcard stands for a slash."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def newest(entries: Iterable[Entry]) -> int:
    """The time of the newest file, in seconds since 1970: the age of an image is that of what it was built from."""
    return max((int(entry.info.mtime) for entry in entries if entry.info.isreg()), default=0)


def write_layer(entries: Iterable[Entry], epoch: int, stream: IO[bytes]) -> Layer:
    """Write the layer to `stream`: sorted, owned by root, every time `epoch`. A later entry of a name wins."""
    compressed = _Tee(stream)
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=cast("Any", compressed), mtime=0) as packed:
        plain = _Tee(packed)
        with tarfile.open(fileobj=cast("Any", plain), mode="w", format=tarfile.PAX_FORMAT) as tar:
            for entry in _complete(entries):
                _add(tar, entry, epoch)
    return Layer(f"sha256:{compressed.hash.hexdigest()}", compressed.size, f"sha256:{plain.hash.hexdigest()}")


def _complete(entries: Iterable[Entry]) -> list[Entry]:
    """Sorted, one a name, with the directories that lead to each."""
    named = {entry.info.name: entry for entry in entries}
    for name in list(named):
        parts = name.split("/")
        for length in range(1, len(parts)):
            above = "/".join(parts[:length])
            if above not in named:
                directory = tarfile.TarInfo(above)
                directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                named[above] = Entry(directory)
    return [named[name] for name in sorted(named)]


def _add(tar: tarfile.TarFile, entry: Entry, epoch: int) -> None:
    info = copy.copy(entry.info)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime, info.mode, info.pax_headers = epoch, _mode(info), {}
    if entry.content is None:
        tar.addfile(info)
        return
    with entry.content() as content:
        tar.addfile(info, content)


def _mode(info: tarfile.TarInfo) -> int:
    if info.issym():
        return 0o777
    if info.isdir():
        return _SHARED if info.name in _SHARED_DIRECTORIES else _RUNNABLE
    return _RUNNABLE if info.mode & 0o111 else _PLAIN


class _Tee:
    """A stream that hashes and counts what passes."""

    def __init__(self, target: IO[bytes] | gzip.GzipFile) -> None:
        self.hash, self.size, self._target = hashlib.sha256(), 0, target

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        self._target.write(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._target.flush()


def configuration(architecture: str, layer: Layer, epoch: int, run: Mapping[str, Any], made_by: str) -> bytes:
    """The image's configuration; `run` has OCI's keys (Entrypoint, Cmd, Env, WorkingDir, Labels)."""
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return canonical(
        {
            "architecture": architecture,
            "os": "linux",
            "created": created,
            "config": {key: value for key, value in run.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [{"created": created, "created_by": made_by}],
        }
    )


def manifest(config: bytes, layer: Layer, annotations: Mapping[str, str]) -> bytes:
    """The image's manifest, whose digest is the image's."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": LAYER_TYPE, "digest": layer.digest, "size": layer.size}],
            "annotations": dict(annotations),
        }
    )


def materials(manifest: bytes) -> dict[str, str]:
    """Package URL -> SHA-256 of what an image was made of; empty for one that kOS did not build."""
    annotations = json.loads(manifest).get("annotations") or {}
    found: dict[str, str] = json.loads(annotations.get(MATERIALS, "{}"))
    return found


def canonical(data: Any) -> bytes:
    """JSON that is the same for equal data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(content: bytes) -> str:
    """``sha256:…``, as OCI names content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
