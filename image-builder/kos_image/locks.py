# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package locks of a builder: one an architecture, made when there is none, renewed when that is asked for."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils.unit_store import locked

from . import definition, packages, toolbox
from .definition import architectures, define, outputs
from .errors import Refused
from .packages import Lock, joined


def place(given: Path | None, architecture: str) -> Path:
    """The lock of an architecture, in the folder given or in the user's own. Raises UsageError."""
    known = definition.architecture(architecture)
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return (given or data / "kos" / "media") / f"{known}.lock"


def renew(path: Path, architecture: str, cache: Path) -> tuple[Lock, list[dict[str, Any]]]:
    """Resolve all packages anew and write the lock; and what has changed. Raises ImageError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        before = _before(path)
        now = _resolved(architecture, cache, before)
        now.write(path)
    return now, _changes(before, now)


def _resolved(architecture: str, cache: Path, before: Lock | None) -> Lock:
    media = _sets(architecture)
    now = packages.resolve(media, architecture, cache)
    beside = {name: wanted for name, wanted in before.asked.items() if name not in media} if before else {}
    if beside:
        now = joined(now, packages.resolve(beside, architecture, cache, system=False))
    return replace(now, made=before.made) if before and before.packages == now.packages else now


def _before(path: Path) -> Lock | None:
    """The lock that is replaced; one that nobody can read is none."""
    try:
        return Lock.read(path)
    except Refused:
        return None


def current(path: Path, architecture: str, cache: Path, keep: bool = True) -> Lock:
    """The lock, made now where there is none, and kept if it shall be. Raises ImageError."""
    if path.exists():
        return Lock.read(path)
    return renew(path, architecture, cache)[0] if keep else _resolved(architecture, cache, None)


def require(lock: Lock, name: str, wanted: Collection[str]) -> None:
    """Raise Refused where the lock was made for other packages than those that set `name` is of now."""
    if changed := set(lock.asked.get(name, ())).symmetric_difference(wanted):
        raise Refused(
            f"the lock for {lock.architecture} is older than the definition of {name}, which has changed by "
            f"{', '.join(sorted(changed))}: run `kos-image lock --arch {lock.architecture}`"
        )


def extended(lock: Lock, path: Path, sets: Mapping[str, Collection[str]], cache: Path, keep: bool = True) -> Lock:
    """The lock with these sets for systems that are there; what it lacks of them is resolved now. Raises ImageError."""
    if not _lacking(lock, sets):
        return lock
    if not keep:
        return _with(lock, sets, cache)
    with locked(path.parent):
        # Another build may have added to it meanwhile.
        lock = _with(Lock.read(path), sets, cache)
        lock.write(path)
    return lock


def _with(lock: Lock, sets: Mapping[str, Collection[str]], cache: Path) -> Lock:
    lacking = _lacking(lock, sets)
    if not lacking:
        return lock
    found = packages.resolve(lacking, lock.architecture, cache, system=False)
    return joined(lock.only(lock.asked.keys() - lacking.keys()), found)


def _lacking(lock: Lock, sets: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    return {name: sorted(wanted) for name, wanted in sets.items() if lock.asked.get(name) != tuple(sorted(wanted))}


def _sets(architecture: str) -> dict[str, list[str]]:
    """The packages of each medium of an architecture, and of the toolbox."""
    media = {name: define(name, architecture).packages for name in outputs() if architecture in architectures(name)}
    return {toolbox.SET: toolbox.wanted(architecture), **media}


def _changes(before: Lock | None, now: Lock) -> list[dict[str, Any]]:
    old, new = _versions(before) if before else {}, _versions(now)
    return [
        {"name": name, "before": old.get(name), "now": new.get(name)}
        for name in sorted({*old, *new})
        if before and old.get(name) != new.get(name)
    ]


def _versions(lock: Lock) -> Mapping[str, str]:
    return {package.name: package.version for package in lock.packages}
