# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups: each node has one of its own, and killing a group kills all of it, whatever it forked.

No process ids are kept, so none can be recycled under us: the kernel knows who belongs to a group.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import HostError, LabError

_JOIN = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


def mount_point(mounts: str | None = None) -> Path | None:
    """Where the unified (v2) hierarchy is mounted; None where it is not."""
    text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    found = [line.split()[1] for line in text.splitlines() if line.split()[2] == "cgroup2"]
    return Path(found[0]) if found else None


def path(name: str) -> Path:
    """The folder of group `name`, made or not. Raises HostError where there is no unified hierarchy."""
    mounted = mount_point()
    if mounted is None:
        raise HostError("the unified control group hierarchy (cgroup2) is not mounted on this machine")
    return mounted / name


def make(name: str) -> Path:
    """Make a group and pass the controllers of its parents down to it."""
    group = path(name)
    group.mkdir(parents=True, exist_ok=True)
    top = path("")
    for parent in reversed([p for p in group.parents if p.is_relative_to(top)]):
        _delegate(parent)
    return group


def _delegate(group: Path) -> None:
    for controller in (group / "cgroup.controllers").read_text().split():
        # Some controllers cannot be passed down where processes live; what the host has passed stays passed.
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def inside(group: Path, argv: Sequence[str]) -> list[str]:
    """`argv` as a command that joins `group` first."""
    return ["sh", "-c", _JOIN, str(group), *argv]


def populated(name: str) -> bool:
    """Whether any process lives in the group or below."""
    try:
        return "populated 1" in (path(name) / "cgroup.events").read_text()
    except (FileNotFoundError, OSError):
        return False


def remove(name: str, timeout: float = 20) -> None:
    """Kill all that lives in the group and remove it. Raises LabError after `timeout` seconds."""
    group = path(name)
    if group.is_dir():
        (group / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + timeout
    while populated(name) or not _prune(group):
        if time.monotonic() > deadline:
            raise LabError(f"processes in {group} did not die within {timeout:.0f} s; see {group}/cgroup.procs")
        time.sleep(0.02)
    # On a hybrid host nspawn mirrors the node's groups into systemd's version 1 hierarchy.
    _prune(Path("/sys/fs/cgroup/systemd", name))


def _prune(group: Path) -> bool:
    if not group.is_dir():
        return True
    try:
        for child in [p for p in group.iterdir() if p.is_dir()]:
            if not _prune(child):
                return False
        group.rmdir()
    except OSError:
        return False
    return True
