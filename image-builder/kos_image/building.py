# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was asked for to a file in its place: which stages, made how, and delivered whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node import models
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError

from . import bundled, host, locks, oci_base, recipe, secureboot, toolbox
from .asked import Asked
from .definition import Definition, define
from .errors import ImageError, UsageError
from .kit import TOOLBOX, Kit
from .packages import Lock
from .stages import Cache, Outlook, Stage, ordered

_WRITTEN = "written.json"


@dataclass(frozen=True)
class Planned:
    """A build before anything is made: its last stage, what that stands on, and where the result goes."""

    asked: Asked
    definition: Definition | None
    lock: Lock
    cache: Cache
    last: Stage
    to: Path


def cache_folder() -> Path:
    """Where stages and packages are kept."""
    given, home = os.environ.get("KOS_MEDIA_CACHE"), os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "kos" / "media"


def plan(asked: Asked, keep: bool = True) -> Planned:
    """What would be made; a package lock that is made for it is kept if it shall be.

    Raises ImageError, ConfigurationError.
    """
    folder, to = cache_folder(), _place(asked)
    _require_models(asked.models)
    if asked.secure_boot:
        secureboot.require_pair(*asked.secure_boot)
    own = host.architecture()
    place = locks.place(asked.locks, asked.architecture)
    target = locks.current(place, asked.architecture, folder, keep)
    tools = target if asked.architecture == own else locks.current(locks.place(asked.locks, own), own, folder, keep)
    definition = define(asked.output, asked.architecture) if asked.is_medium else None
    if definition and asked.in_clear:
        definition = definition.in_clear()
    if definition:
        locks.require(target, asked.output, definition.packages)
    locks.require(tools, toolbox.SET, toolbox.wanted(own))
    generations = bundled.wanted(asked)
    beside = {**(bundled.sets(asked, generations) if asked.has_bundle else {}), **oci_base.sets(asked.output)}
    target = locks.extended(target, place, beside, folder, keep)
    last = recipe.last(Kit(asked, target, tools, own, folder, definition, generations))
    return Planned(asked, definition, target, Cache(folder / "stages", asked.scope), last, to)


def lock(architecture: str, given: Path | None) -> dict[str, Any]:
    """Renew the package lock of an architecture; what is in it and what has changed. Raises ImageError."""
    path = locks.place(given, architecture)
    found, changes = locks.renew(path, architecture, cache_folder())
    return {"lock": str(path), "made": found.made, "packages": len(found.packages), "changes": changes}


def keys(folder: Path, name: str, given: Path | None, tell: Callable[[Stage, str, float], None]) -> dict[str, str]:
    """Make a set of Secure Boot keys in a new folder; which files sign media, and which enrol it. Raises ImageError."""
    cache, own = cache_folder(), host.architecture()
    secureboot.require_new(folder)
    host.require(cache)
    tools = locks.current(locks.place(given, own), own, cache)
    kit = Kit(Asked("development", "usb", own), tools, tools, own, cache)
    made = Cache(cache / "stages", TOOLBOX).build([kit.toolbox], tell, 1)
    key = secureboot.make_keys(kit.box(made), folder.absolute(), name)
    return {"key": str(key.private), "certificate": str(key.certificate), "folder": str(folder)}


def described(planned: Planned) -> dict[str, Any]:
    """A dry run: the definition, each stage with its state, sizes in bytes."""
    outlooks = [planned.cache.outlook(stage) for stage in ordered([planned.last])]
    return {
        "definition": planned.definition.model_dump() if planned.definition else None,
        "stages": [_outlook(planned, one) for one in outlooks],
        "packages": _packages(planned),
        "to": str(planned.to),
    }


def _outlook(planned: Planned, one: Outlook) -> dict[str, Any]:
    return {
        "name": one.stage.name,
        "cached": one.cached,
        "because": one.because,
        "size": planned.cache.size(one.stage),
    }


def _packages(planned: Planned) -> dict[str, int] | None:
    if planned.definition is None:
        return None
    debs = cache_folder() / "debs"
    rows = planned.lock.of(planned.asked.output)
    missing = sum(one.size for one in rows if not (debs / one.file).exists())
    return {
        "count": len(rows),
        "download": sum(one.size for one in rows),
        "installed": sum(one.installed for one in rows),
        "missing": missing,
    }


def make(planned: Planned, tell: Callable[[Stage, str, float], None]) -> dict[str, Any]:
    """Make what is missing and deliver the result; what it is. Raises ImageError, OSError."""
    began = time.monotonic()
    if not all(planned.cache.outlook(stage).cached for stage in ordered([planned.last])):
        host.require(cache_folder(), planned.asked.architecture if planned.definition else None)
    entry = planned.cache.build([planned.last], tell, os.cpu_count() or 1)[planned.last.name]
    _deliver(entry, planned.to, planned.cache.folder / _WRITTEN)
    facts = json.loads((entry / recipe.FACTS).read_text())
    return {
        "to": str(planned.to),
        **facts,
        "seconds": round(time.monotonic() - began, 2),
        "next": planned.asked.next(planned.to.name),
    }


def _place(asked: Asked) -> Path:
    """Where the result goes. Raises UsageError for what is no place for a file."""
    to = (asked.to or Path()).absolute()
    to = to / asked.file_name if to.is_dir() else to
    if to.exists() and not to.is_file():
        raise UsageError(f"{to} is not a file: build into a file, and put that on a stick with `kos-image write`")
    if not to.parent.is_dir():
        raise UsageError(f"there is no folder {to.parent}: make it, or correct --to")
    if not os.access(to.parent, os.W_OK):
        raise UsageError(f"{to.parent} cannot be written to: name another place with --to")
    return to


def _require_models(given: Iterable[Path]) -> None:
    names = [path.stem.lower() for path in given]
    if len(set(names)) != len(names):
        raise UsageError("two of the models have one name: rename a file")
    for path in given:
        try:
            models.require_gguf(str(path))
        except NodeError as error:
            raise UsageError(f"{path}: {error}") from error


def _deliver(entry: Path, to: Path, record: Path) -> None:
    """Put a result, and what lies beside it, where it was asked for, unless it is there already."""
    known = _known(record)
    # The result itself comes last: where it is, what belongs to it is too.
    sources = sorted(entry.glob(f"{recipe.RESULT}*"), reverse=True)
    targets = {source: to.with_name(to.name + source.name.removeprefix(recipe.RESULT)) for source in sources}
    wanted = {a: b for a, b in targets.items() if known.get(str(b)) != [str(a), _identity(b)]}
    _require_room(sum(source.stat().st_size for source in wanted), to)
    for source, target in wanted.items():
        _copy(source, target)
        known[str(target)] = [str(source), _identity(target)]
    unfinished = record.with_name(f".{record.name}.{os.getpid()}.new")
    unfinished.write_text(json.dumps(known))
    unfinished.rename(record)


def _known(record: Path) -> dict[str, Any]:
    """What was delivered where; nothing where the record of it is broken: then all is delivered again."""
    try:
        found = json.loads(record.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _require_room(need: int, to: Path) -> None:
    free = shutil.disk_usage(to.parent).free
    if need > free:
        raise ImageError(f"{to.name} wants {need >> 20} MiB and {to.parent} has {free >> 20} MiB: free some space")


def _identity(path: Path) -> list[int] | None:
    """What changes with the content of a file, without reading it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all; what is zeros takes no room."""
    unfinished = target.with_name(f".{target.name}.new")
    try:
        argv = ["cp", "--reflink=auto", "--sparse=always", "--", str(source), str(unfinished)]
        subprocess.run(argv, check=True, capture_output=True, text=True)
        unfinished.chmod(0o644)
        unfinished.rename(target)
    except subprocess.CalledProcessError as error:
        raise ImageError(f"{target} could not be written: {error.stderr.strip()}") from error
    finally:
        unfinished.unlink(missing_ok=True)
