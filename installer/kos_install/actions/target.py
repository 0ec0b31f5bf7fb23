# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mounted target: files written atomically below it, and programs that run with it as their root."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node import files
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root

from .runner import run

_SCRIPT = Path(__file__).with_name("within.sh")
# It ends with us, whatever becomes of us, and takes all that it started along.
_NAMESPACES = [
    "setpriv",
    "--pdeathsig",
    "KILL",
    "--",
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation=private",
]


@dataclass(frozen=True)
class File:
    """A file of the target: its path as the node sees it. `owner`: user and group, by number."""

    path: str
    content: str = ""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Link:
    """A symbolic link of the target."""

    path: str
    to: str


Entry = File | Link


def lay(root: Root, entries: Iterable[Entry]) -> None:
    """Write each entry, complete or not at all, on disk when this returns. Raises OSError."""
    for entry in entries:
        path = root.join(entry.path)
        if isinstance(entry, Link):
            files.link(path, entry.to)
        else:
            files.write(path, entry.content.encode(), entry.mode, *entry.owner)


def lies(root: Root, entries: Iterable[Entry]) -> bool:
    """Whether every entry is there, with this content, mode and owner."""
    return all(_lies(Path(root.join(entry.path)), entry) for entry in entries)


def _lies(path: Path, entry: Entry) -> bool:
    if isinstance(entry, Link):
        return path.is_symlink() and str(path.readlink()) == entry.to
    if path.is_symlink() or not path.is_file():
        return False
    status = path.stat()
    same = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (entry.mode, *entry.owner)
    return same and path.read_bytes() == entry.content.encode()


def within(target: Path) -> list[str]:
    """What is written before a command line that installs into `target`: mounts and processes end with it."""
    return [*_NAMESPACES, "--", "sh", str(_SCRIPT), str(target)]


def inside(target: Path, argv: Sequence[str], stdin: str = "") -> str:
    """What a program of the target prints that runs with it as its root. Raises ApplyFailed."""
    return run([*within(target), "chroot", str(target), *argv], stdin=stdin)
