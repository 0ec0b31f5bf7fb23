# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything is mounted below the target, in the order of the plan; and let go again."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ApplyFailed
from ..storage.actions import Luks, Mount, Plan
from . import luks
from .context import Context
from .runner import Log, outcome, run

# It does not outlive a start of the machine, and doing it again changes nothing.
VOLATILE = True
_BIND = "bind"


def perform(context: Context, action: Mount) -> None:
    """Mount it. Raises ApplyFailed."""
    unmount(context.target, context.log)
    for what, where, options in action.mounts:
        place = inside(context.target, where)
        place.mkdir(parents=True, exist_ok=True)
        source = what
        if _BIND in options.split(","):
            folder = inside(context.target, what)
            folder.mkdir(parents=True, exist_ok=True)
            source = str(folder)
        run(["mount", *(["-o", options] if options else []), source, str(place)], log=context.log)


def stands(context: Context, action: Mount) -> bool:
    """Whether all of it is mounted now."""
    return all(os.path.ismount(inside(context.target, where)) for _what, where, _options in action.mounts)


def inside(target: Path, where: str) -> Path:
    """A path of the target, here. Raises ApplyFailed for one that leads out of it."""
    path = Path(os.path.normpath(f"{target}/{where.lstrip('/')}"))
    if path != target and target not in path.parents:
        raise ApplyFailed(f"{where} leads out of the target")
    return path


def unmount(target: Path, log: Log) -> None:
    """Unmount the target with all below it; what was written there is on its disk then. Raises ApplyFailed."""
    if os.path.ismount(target):
        run(["umount", "--recursive", str(target)], log=log)


def close_all(plan: Plan, target: Path, log: Log) -> None:
    """Let go of everything that an install holds, after success and after failure. Raises ApplyFailed."""
    unmount(target, log)
    for action in reversed([one for one in plan.actions if isinstance(one, Luks)]):
        luks.close(action.name, log)


def sync(target: Path, log: Log) -> None:
    """Have every file system of the target on its disk. Raises ApplyFailed, also for what failed to be written before.

    sync --file-system is syncfs(2), which tells of write errors; sync(2) does not.
    """
    said, _code = outcome(["findmnt", "--submounts", "--noheadings", "--list", "--output", "TARGET", str(target)])
    for place in said.split("\n"):
        if place:
            run(["sync", "--file-system", place], log=log)
