# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The system image goes into the target: the medium's own proved root, without what only a medium needs."""

from __future__ import annotations

import os
import re
import stat
import struct
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout

from ..errors import ApplyFailed
from ..storage.actions import Mount, Unpack
from . import mount
from .context import Context
from .runner import run

# Below it the kernel proves every block as it is read.
IMAGE = Path("/dev/mapper/root")
LIVE_ONLY = Path(system_layout.INSTALLED, "live-only")
TREE = Path(system_layout.INSTALLED, "tree")

# Squashfs 4.0: its magic, and where it says how many bytes it has.
_MAGIC, _BYTES_USED = b"hsqs", 40
_RCHAR = re.compile(r"^rchar: (\d+)$", re.MULTILINE)
# unsquashfs -lln: mode, owner, size or device, date, time, path
_LISTED = re.compile(r"^(?P<kind>[-dlcbps])\S{9} \d+/\d+ +(?P<size>\d+)? *\S+ \S+ squashfs-root(?P<path>/.*)?$")
# What the steps after this one change, and what the tree laid over it may.
_CHANGES = ("/etc/", "/var/", "/root/", "/home/", "/boot/", "/run/", f"{system_layout.SYSIMAGE}/")


@dataclass(frozen=True)
class _Entry:
    kind: str
    size: int
    path: str


def perform(context: Context, action: Unpack) -> None:
    """Unpack it, and have it on the disk. Raises ApplyFailed."""
    total = image_size(IMAGE)
    clear(context.target, _ours(context))
    with _excludes() as excluded:
        run(
            ["unsquashfs", "-quiet", "-no-progress", "-force", *excluded, "-dest", str(context.target), str(IMAGE)],
            log=context.log,
            watch=lambda pid: context.progress(action.id, min(_read_by(pid), total), total, "bytes"),
        )
    if TREE.is_dir():
        run(["cp", "--archive", "--no-target-directory", str(TREE), str(context.target)], log=context.log)
    mount.sync(context.target, context.log)
    context.progress(action.id, total, total, "bytes")


def clear(folder: Path, ours: Collection[Path]) -> None:
    """Remove what an unpacking that was interrupted left, below `ours` of what is mounted there too. Raises OSError.

    Two media's systems must not come to lie in one another. Another mount, the firmware's or a stranger's, stays; so
    does each of `ours` itself: what a bound folder is bound from would be gone where it is bound.
    """
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        elif entry in ours:
            clear(entry, ours)
        elif not entry.is_mount():
            clear(entry, ours)
            if not any(entry.iterdir()):
                entry.rmdir()


def _ours(context: Context) -> set[Path]:
    """Where the parts of the system itself are mounted, and what is bound elsewhere."""
    mounts = [one for action in context.plan.actions if isinstance(action, Mount) for one in action.mounts]
    found = {where for _what, where, _options in mounts if not where.startswith(system_layout.ESP_AT)}
    found |= {what for what, _where, options in mounts if "bind" in options.split(",")}
    return {mount.inside(context.target, path) for path in found}


def stands(context: Context, action: Unpack) -> bool:
    """Whether every file of the image is there, of the kind and, where nothing later changes it, the size it has.

    Their contents were on the disk before the journal said so, and btrfs proves them whenever they are read.
    """
    return not any(_differs(context.target, entry) for entry in listed(IMAGE))


def image_size(image: Path) -> int:
    """Bytes of a squashfs. Raises ApplyFailed for what is none."""
    with image.open("rb") as stream:
        head = stream.read(96)
    if head[:4] != _MAGIC:
        raise ApplyFailed(f"{image} is no system image: start the machine from a medium that installs")
    return int(struct.unpack_from("<Q", head, _BYTES_USED)[0])


def listed(image: Path) -> Iterator[_Entry]:
    """What is to be unpacked of an image. Raises ApplyFailed."""
    with _excludes() as excluded:
        # One that keeps nothing of a folder still lists the folder: the tree may lay it.
        said = run(["unsquashfs", "-lln", *excluded, str(image)])
    for line in said.splitlines():
        found = _LISTED.match(line)
        if found and found["path"]:
            path = found["path"].partition(" -> ")[0] if found["kind"] == "l" else found["path"]
            yield _Entry(found["kind"], int(found["size"] or 0), path)


def _differs(target: Path, entry: _Entry) -> bool:
    try:
        found = os.lstat(mount.inside(target, entry.path))
    except OSError:
        return not entry.path.startswith(_CHANGES)
    kinds = {"-": stat.S_ISREG, "d": stat.S_ISDIR, "l": stat.S_ISLNK}
    if entry.path.startswith(_CHANGES) or (TREE / entry.path.lstrip("/")).exists():
        return False
    if entry.kind in kinds and not kinds[entry.kind](found.st_mode):
        return True
    return entry.kind == "-" and found.st_size != entry.size


@contextmanager
def _excludes() -> Iterator[list[str]]:
    """The options of unsquashfs that leave out what is the medium's alone."""
    names = [line.strip().lstrip("/") for line in _live_only().splitlines()]
    names = [name for name in names if name and not name.startswith("#")]
    with tempfile.NamedTemporaryFile("w", prefix="live-only-") as file:
        file.write("".join(f"{name}\n" for name in names))
        file.flush()
        yield ["-exclude-file", file.name] if names else []


def _live_only() -> str:
    return LIVE_ONLY.read_text(encoding="utf-8") if LIVE_ONLY.exists() else ""


def _read_by(pid: int) -> int:
    """Bytes that a program has read so far (proc_pid_io(5))."""
    try:
        found = _RCHAR.search(Path(f"/proc/{pid}/io").read_text(encoding="ascii"))
    except OSError:
        return 0
    return int(found[1]) if found else 0
