# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths below a root that may not be booted, and writes that survive a crash."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from typing import Any

STATE = "/var/lib/kos"
CONFIGURATION = "/etc/kos"
_UNFINISHED = ".kos-new"
# As the kernel has it: path_resolution(7).
_MOST_LINKS = 40


class Root:
    """The file system tree that becomes a node: ``/``, or a directory an installer has mounted."""

    def __init__(self, path: str = "/") -> None:
        self.path = os.path.abspath(path)
        self.booted = self.path == "/" and os.path.isdir("/run/systemd/system")

    def join(self, absolute: str) -> str:
        """Where `absolute` (a path as the node sees it) lies from here.

        Links on the way are followed as the node would: below a root that is not booted none leads out of it.
        """
        path = os.path.normpath(self.path + "/" + absolute)
        return path if self.path == "/" else _within(self.path, path)

    def state(self, *parts: str) -> str:
        """A path below kOS's own state directory."""
        return self.join("/".join([STATE, *parts]))


def _within(root: str, path: str) -> str:
    """`path`, below `root`, with the links of its parents resolved as if `root` were /. Raises NodeError."""
    waiting = [part for part in os.path.relpath(path, root).split("/") if part not in ("", ".", "..")]
    here, followed = root, 0
    while len(waiting) > 1:
        part = waiting.pop(0)
        if part == "..":
            here = here if here == root else os.path.dirname(here)
            continue
        step = os.path.join(here, part)
        if not os.path.islink(step):
            here = step
            continue
        followed += 1
        if followed > _MOST_LINKS:
            raise NodeError(f"{path}: too many links on the way: are two of them in a circle?")
        target = os.readlink(step)
        here = root if target.startswith("/") else here
        waiting = [word for word in target.split("/") if word not in ("", ".")] + waiting
    return os.path.join(here, *waiting)


class NodeError(Exception):
    """Something expected went wrong on the node; the text is a sentence for people."""


def spoken(error: OSError) -> str:
    """What the operating system refused, as a sentence for people."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left on the node's disk{where}: free some, then run again"
    return f"{error.strerror or error}{where}"


class Busy(NodeError):
    """Another run holds the node; its text says who and what to do."""


@contextlib.contextmanager
def lock(root: Root, wait: bool = False) -> Iterator[None]:
    """Hold the node's lock. Raises Busy when another process has it, unless told to `wait`."""
    make_directory(root.state())
    with open(root.state("lock"), "w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise Busy("another kOS run is changing this node right now: wait for it to end, then run again") from error
        yield


def write(path: str, content: bytes, mode: int = 0o644, uid: int = -1, gid: int = -1) -> None:
    """Put `content` at `path` atomically: complete or not at all, on disk when this returns. Raises OSError."""
    make_directory(os.path.dirname(path))
    temporary = path + _UNFINISHED
    try:
        _write_through(temporary, content, mode, uid, gid)
        os.rename(temporary, path)
    except OSError:
        drop_unfinished(path)
        raise
    sync_directory(path)


def _write_through(path: str, content: bytes, mode: int, uid: int, gid: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(content)
        if (uid, gid) != (-1, -1):
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
        stream.flush()
        os.fsync(descriptor)


def link(path: str, target: str) -> None:
    """Make `path` a symbolic link to `target`, atomically."""
    make_directory(os.path.dirname(path))
    temporary = path + _UNFINISHED
    drop_unfinished(path)
    os.symlink(target, temporary)
    os.rename(temporary, path)
    sync_directory(path)


def sweep_unfinished(folder: str) -> None:
    """Delete what killed writers left in `folder`."""
    for name in os.listdir(folder):
        if name.endswith(_UNFINISHED):
            remove(os.path.join(folder, name))


def drop_unfinished(path: str) -> None:
    """Delete what a `write` or `link` of `path` that was killed half-way left beside it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + _UNFINISHED)


def make_directory(path: str) -> None:
    """Make the directory `path` and its parents where missing; each new name is on disk when this returns."""
    if os.path.isdir(path):
        return
    make_directory(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    sync_directory(path)


def sync_directory(path: str) -> None:
    """Make durable that the name `path` has come into its directory, or left it."""
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Delete a file or link, durably; nothing to do when it is not there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        sync_directory(path)


def read(path: str) -> bytes | None:
    """The content of a regular file, or None when there is none."""
    try:
        # Opening a pipe would wait for whoever writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as stream:
        return stream.read()


def read_json(path: str, default: Any) -> Any:
    """The JSON document at `path`, or `default` when there is none."""
    content = read(path)
    return default if content is None else json.loads(content)


def write_json(path: str, data: Any, mode: int = 0o644) -> None:
    """Put `data` at `path` as JSON, atomically."""
    write(path, (json.dumps(data, sort_keys=True, indent=1) + "\n").encode(), mode)
