# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees as tar archives: a root and the files laid over it, as one archive that is the same wherever it is made.

Owners, modes, capabilities and devices never touch the build machine's file system, so nobody must be root for them.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from .errors import ImageError


def merge(root: Path, overlays: Iterable[Path], epoch: int, target: Path, without: Collection[str] = ()) -> None:
    """Write the archive `root` with the overlays over it, later ones over earlier, as `target`.

    Files of an overlay belong to root, have the time `epoch`, and are 0755 where their owner may run them, else 0644:
    whatever the umask was. `without` names folders that are left empty. Raises ImageError, OSError.
    """
    own = _own(overlays)
    with tarfile.open(root) as old, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as new:
        folders = set()
        for member in old:
            name = _name(member)
            if name in own and not _both_folders(name, member, own[name]):
                continue
            if any(name.startswith(f"{folder}/") for folder in without):
                continue
            if member.islnk() and _normal(member.linkname) in own:
                raise ImageError(f"/{name} is a hard link to a file that is laid over the root; lay both over it")
            if member.isdir():
                folders.add(name)
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
        for name in sorted(own.keys() - folders):
            _add(new, name, own[name], epoch)


def _own(overlays: Iterable[Path]) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for folder in overlays for path in folder.rglob("*")}


def _both_folders(name: str, member: tarfile.TarInfo, path: Path) -> bool:
    """Whether a name is a folder on both sides; where on one alone, what lies in there would be lost or misplaced."""
    folder = path.is_dir() and not path.is_symlink()
    if member.isdir() != folder:
        raise ImageError(f"/{name} is a folder on one side only: in the root or in the files laid over it; rename it")
    return folder


def _add(tar: tarfile.TarFile, name: str, path: Path, epoch: int) -> None:
    info = tarfile.TarInfo(f"./{name}")
    info.mtime, info.mode = epoch, 0o755
    if path.is_symlink():
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
        tar.addfile(info)
    elif path.is_dir():
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    else:
        found = path.stat()
        info.size, info.mode = found.st_size, 0o755 if found.st_mode & stat.S_IXUSR else 0o644
        with path.open("rb") as content:
            tar.addfile(info, content)


def extract(tree: Path, names: Mapping[str, str], folder: Path) -> None:
    """Write single files of an archive into `folder`: where each lies in there, and what it is called afterwards.

    Raises ImageError where one is missing, OSError.
    """
    missing = dict(names)
    with tarfile.open(tree) as tar:
        for member in tar:
            wanted = missing.pop(_name(member), None)
            if wanted and (content := tar.extractfile(member)):
                target = folder / wanted
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as stream:
                    shutil.copyfileobj(content, stream)
            if not missing:
                return
    raise ImageError(f"the root has no /{min(missing)}: the package that brings it is not in the definition")


def size(tree: Path, block: int) -> tuple[int, int]:
    """What the files of an archive take in blocks of that size, in bytes, and how many entries there are."""
    with tarfile.open(tree) as tar:
        sizes = [-(-member.size // block) * block for member in tar]
    return sum(sizes), len(sizes)


def _name(member: tarfile.TarInfo) -> str:
    return _normal(member.name)


def _normal(name: str) -> str:
    return name.removeprefix("./").strip("/")
