# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The medium's data (bundle, keys, lists), copied to where a node keeps them: it deploys anew without the medium."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node import files
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.plugin_utils import own_node

from .. import medium
from ..errors import ApplyFailed
from .runner import run

_LABEL = "kos-data"
_CHUNK = 8 << 20


def take(root: Root, tell: Callable[[int, int], None]) -> None:
    """Copy them; a file that is there with its size stays. `tell` hears bytes. Raises ApplyFailed, OSError."""
    with _mounted() as source:
        wanted = sorted(path for path in source.rglob("*") if path.is_file())
        total, done = sum(path.stat().st_size for path in wanted), 0
        for path in wanted:
            to = Path(root.join(f"{own_node.MEDIA}/{path.relative_to(source)}"))
            if not _same(path, to):
                _copy(path, to, partial(_told, tell, done, total))
            done += path.stat().st_size
            tell(done, total)


def size() -> int:
    """Bytes of the medium's data. Raises ApplyFailed where the medium's data cannot be found, OSError."""
    with _mounted() as source:
        return sum(path.stat().st_size for path in source.rglob("*") if path.is_file())


def _told(tell: Callable[[int, int], None], before: int, total: int, count: int) -> None:
    tell(before + count, total)


def lies(root: Root) -> bool:
    """Whether every file of the medium's data is in the target, by its size; the bundle is proved when it is used."""
    with _mounted() as source:
        found = [path for path in source.rglob("*") if path.is_file()]
        return all(_same(path, Path(root.join(f"{own_node.MEDIA}/{path.relative_to(source)}"))) for path in found)


def _same(path: Path, to: Path) -> bool:
    return to.is_file() and not to.is_symlink() and to.stat().st_size == path.stat().st_size


def _copy(path: Path, to: Path, tell: Callable[[int], None]) -> None:
    """Under another name first, so that half a file never looks whole."""
    files.make_directory(str(to.parent))
    unfinished, done = to.with_name(f".{to.name}.new"), 0
    with path.open("rb") as source, unfinished.open("wb") as sink:
        while chunk := source.read(_CHUNK):
            sink.write(chunk)
            done += len(chunk)
            tell(done)
        sink.flush()
        os.fsync(sink.fileno())
    unfinished.chmod(0o644)
    unfinished.rename(to)
    files.sync_directory(str(to))


@contextlib.contextmanager
def _mounted() -> Iterator[Path]:
    """The medium's data, to be read. Raises ApplyFailed."""
    device = medium.partition(_LABEL)
    if device is None:
        raise ApplyFailed("the medium's data cannot be found: is the stick still plugged in?")
    folder = Path(tempfile.mkdtemp(prefix="kos-data-", dir="/run"))
    try:
        run(["mount", "-o", "ro,nodev,nosuid,noexec", str(device), str(folder)])
        try:
            yield folder
        finally:
            run(["umount", str(folder)])
    finally:
        folder.rmdir()
