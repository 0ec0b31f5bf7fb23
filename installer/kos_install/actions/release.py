# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let go of what holds a disk, top first, as curtin's clear_holders does: look, take down, prove that it is free."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from ..errors import ApplyFailed
from ..storage.actions import Release
from . import disks
from .context import Context
from .disks import Node
from .runner import Log, run

# What was let go may be taken again at once: udev puts together what looks like an array.
_ROUNDS = 4
_SWAP = "[SWAP]"


def perform(context: Context, action: Release) -> None:
    """Free the disk. Raises ApplyFailed where something keeps it."""
    free(disks.find(action.disk).path, context.log)


def stands(context: Context, action: Release) -> bool:
    """What holds it now is this install's own."""
    disks.find(action.disk)
    return True


def free(path: str, log: Log) -> None:
    """Take down all that lies on a disk, and prove that nobody has it open. Raises ApplyFailed."""
    for _round in range(_ROUNDS):
        [disk] = disks.look(path)
        mounted, built = _mounted(disk), [node for node in disk.walk() if node.type not in ("disk", "part")]
        if not mounted and not built:
            break
        for node in mounted:
            _unmount(node, log)
        for node in built:
            _take_down(node, log)
        disks.settle()
    _prove(path)


def _mounted(disk: Node) -> list[Node]:
    """What of a disk is mounted, top first. A file system of several disks is mounted by the name of one of them."""
    own = list(disk.walk())
    shared = {node.uuid for node in own if node.filesystem == "btrfs"} - {""}
    known = {node.path for node in own}
    others = [node for one in disks.look() for node in one.walk() if node.uuid in shared and node.path not in known]
    return [node for node in (*own, *others) if node.mounts]


def _unmount(node: Node, log: Log) -> None:
    if _SWAP in node.mounts:
        run(["swapoff", node.path], log=log)
    for where in sorted((one for one in node.mounts if one != _SWAP), key=len, reverse=True):
        # With what is mounted below it; one that went with another is not there any more.
        if os.path.ismount(where):
            run(["umount", "--recursive", where], log=log)


def _take_down(node: Node, log: Log) -> None:
    if not os.path.exists(node.path):
        return
    if node.type.startswith(("raid", "linear", "md")):
        run(["mdadm", "--stop", node.path], log=log)
    elif node.type == "lvm":
        run(["lvchange", "--activate", "n", "--yes", node.path], log=log)
    elif node.type == "crypt":
        run(["cryptsetup", "close", node.path], log=log)
    elif node.type == "loop":
        run(["losetup", "--detach", node.path], log=log)
    else:
        run(["dmsetup", "remove", node.path], log=log)


def _prove(path: str) -> None:
    [disk] = disks.look(path)
    for node in disk.walk():
        try:
            with exclusively(node.path):
                pass
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise ApplyFailed(
                f"{node.path} is in use by something that could not be stopped: "
                "stop it, or start the machine from the medium again, and resume"
            ) from error


@contextlib.contextmanager
def exclusively(path: str) -> Iterator[int]:
    """A device that nobody else has mounted or put to use. Raises OSError (EBUSY) where somebody has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
