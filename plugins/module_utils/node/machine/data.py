# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The subvolumes with a machine's data. Which of them a root mounts is said by its own fstab, and by nothing else.

So a system that starts always finds the data that it had, whatever became of another one; and what no root that is kept
mounts any more may go.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping

from .. import files, system
from ..files import Root
from . import candidate, layout, system_layout, systems

# What begins anew with a reset; the logs of before tell how it came to that.
NAMES = {name: place for name, place in system_layout.PERSISTENT.items() if name != "@log"}
_PLACES = {place: name for name, place in NAMES.items()}
_OPTION = re.compile(r"\bsubvol=/?(@(?:var|home)(?:\.\d+)?)(?=[,\s])")
_NAME = re.compile(r"^@(?:var|home)(?:\.(\d+))?$")
_BELOW_VAR = os.path.relpath(systems.TRIALS, "/var")


def of_root(number: int) -> dict[str, str]:
    """The subvolumes that root `number` mounts, by their place; none where it has no fstab that says so."""
    rows = (files.read(f"{candidate.path(number)}{layout.FSTAB}") or b"").decode().splitlines()
    return {place: match[1] for row in rows if (place := _place(row)) and (match := _OPTION.search(row))}


def _place(row: str) -> str | None:
    words = row.split()
    return words[1] if len(words) > 1 and words[1] in _PLACES and not row.startswith("#") else None


def give(number: int, names: Mapping[str, str]) -> None:
    """Let root `number` mount the subvolumes `names`, by their place, from its next start on. Raises OSError."""
    path = f"{candidate.path(number)}{layout.FSTAB}"
    rows = (files.read(path) or b"").decode().splitlines(keepends=True)
    for position, row in enumerate(rows):
        wanted = names.get(_place(row) or "")
        if wanted:
            rows[position] = _OPTION.sub(f"subvol={wanted}", row)
    files.write(path, "".join(rows).encode(), os.stat(path).st_mode & 0o777)


def fresh(number: int) -> dict[str, str]:
    """Make what root `number` shall mount out of the installer's snapshots; those in use are not touched.

    Raises CommandFailed.
    """
    top, made = top_of_var(), {}
    for name, place in NAMES.items():
        made[place] = f"{name}.{number}"
        kept = os.path.join(top, f"{name}.{systems.PRISTINE}")
        system.run(["btrfs", "subvolume", "snapshot", kept, os.path.join(top, made[place])])
    return made


def hand_over(root: Root, number: int) -> None:
    """Give the fresh /var of root `number` what is remembered of systems, all of it on disk. Raises CommandFailed."""
    top = top_of_var()
    system.run(["cp", "-a", root.join(systems.FOLDER), os.path.join(top, f"@var.{number}", "lib")])
    system.run(["btrfs", "filesystem", "sync", top])


def hear(root: Root, number: int) -> None:
    """Bring over what the gate of root `number` said, into a /var of its own: it may have failed. Raises OSError."""
    said = files.read(os.path.join(top_of_var(), f"@var.{number}", _BELOW_VAR, str(number)))
    if said:
        files.write(root.join(f"{systems.TRIALS}/{number}"), said)


def top_of_var() -> str:
    """Where the subvolumes of the disk with /var lie. Raises CommandFailed."""
    device = layout.device_of("/var")
    place = "/run/kos/data"
    if not os.path.ismount(place):
        os.makedirs(place, mode=0o700, exist_ok=True)
        system.run(["mount", "-t", "btrfs", "-o", "subvolid=5", device, place])
    return place


def sweep(root: Root) -> None:
    """Delete the data that no root mounts, be it in use or only kept. Raises CommandFailed.

    Where it cannot be told what one of the roots mounts, all of it stays.
    """
    wanted = set(_mounted(root))
    for number in systems.subvolumes(layout.TOP):
        if number != systems.PRISTINE:
            names = of_root(number).values()
            if not names:
                return
            wanted.update(names)
    top = top_of_var()
    for name in sorted(os.listdir(top)):
        match = _NAME.match(name)
        if match and match[1] != str(systems.PRISTINE) and name not in wanted:
            # systemd and others make subvolumes of their own below /var.
            system.run(["btrfs", "subvolume", "delete", "--recursive", "--commit-after", os.path.join(top, name)])


def _mounted(root: Root) -> Iterable[str]:
    """The subvolumes that are mounted now, where data belong."""
    for line in (files.read(root.join(layout.MOUNTS)) or b"").decode().splitlines():
        words = line.split()
        with contextlib.suppress(IndexError):
            if words[4] in _PLACES:
                yield words[3].lstrip("/")
