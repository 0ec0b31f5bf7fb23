# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Content-addressed stages: each is made once from what it is made of, and kept; whole, or not there at all.

The key of a stage is the digest of its inputs, and among these are the keys of the stages it builds on. So what must be
made is known before anything is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path

from .errors import ImageError, Stopped

Folders = Mapping[str, Path]
Make = Callable[[Path, Folders], None]

UNFINISHED = "making-"  # how the names of what a build is at begin: the next one sweeps it away, if this one is killed
_KEPT_SECONDS = 14 * 86400
_USED = ".used"


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a build. `make` fills an empty folder; it is given the folders of `after`, by name.

    `inputs`: everything else that the content depends on, by name: digests, versions, plain settings.
    `doing`: what a person reads while it is made.
    """

    name: str
    doing: str
    make: Make
    inputs: Mapping[str, str] = field(default_factory=dict)
    after: tuple[Stage, ...] = ()

    @cached_property
    def all_inputs(self) -> dict[str, str]:
        """The inputs with the keys of the stages it builds on."""
        return dict(sorted({**self.inputs, **{stage.name: stage.key for stage in self.after}}.items()))

    @cached_property
    def key(self) -> str:
        """SHA-256 over name and inputs, shortened to 128 bits: two stages of one key have the same content."""
        return hashlib.sha256(json.dumps([self.name, self.all_inputs]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Outlook:
    """What a build would do with a stage; `because`: why it is not in the cache, in words."""

    stage: Stage
    cached: bool
    because: str = ""


def ordered(targets: Iterable[Stage]) -> list[Stage]:
    """The targets and all that they build on, each after what it needs."""
    return list(_sorter(targets).static_order())


def _sorter(targets: Iterable[Stage]) -> TopologicalSorter[Stage]:
    # By key: a stage that two others build on may have been described twice.
    known: dict[str, Stage] = {}
    graph: dict[str, list[str]] = {}
    waiting = list(targets)
    while waiting:
        stage = waiting.pop()
        if stage.key not in known:
            known[stage.key] = stage
            graph[stage.key] = [one.key for one in stage.after]
            waiting += stage.after
    sorter: TopologicalSorter[Stage] = TopologicalSorter()
    for key, stage in known.items():
        sorter.add(stage, *(known[one] for one in graph[key]))
    return sorter


@dataclass(frozen=True)
class Cache:
    """A folder of made stages. `scope` (which medium) tells apart what was last made, to say what has changed since."""

    folder: Path
    scope: str

    def entry(self, stage: Stage) -> Path:
        """Where the content of a stage is, or will be."""
        return self.folder / f"{stage.name}-{stage.key}"

    def outlook(self, stage: Stage) -> Outlook:
        """Whether it is there; why not."""
        if self.entry(stage).is_dir():
            return Outlook(stage, cached=True)
        return Outlook(stage, cached=False, because=self._because(stage))

    def size(self, stage: Stage) -> int:
        """Bytes that its content has; 0 where it is not there."""
        files = (path for path in self.entry(stage).rglob("*") if path.is_file() and not path.is_symlink())
        return sum(path.stat().st_size for path in files if not path.name.startswith("."))

    def _because(self, stage: Stage) -> str:
        try:
            before = json.loads(self._last(stage).read_text())
        except (OSError, ValueError):
            return "never made"
        now = stage.all_inputs
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        return f"changed: {', '.join(changed)}" if changed else "no longer in the cache"

    def _last(self, stage: Stage) -> Path:
        return self.folder / "last" / f"{self.scope}-{stage.name}.json"

    def build(self, targets: Iterable[Stage], tell: Callable[[Stage, str, float], None], jobs: int) -> dict[str, Path]:
        """Make what is missing, side by side where nothing stands between; the folders of all stages, by name.

        `tell` hears of each stage `cached`, `making` and `made`, with seconds. Raises what a stage raises.
        """
        wanted = list(targets)
        with self._locked():
            self._sweep()
            pool = ThreadPoolExecutor(jobs)
            try:
                self._run(pool, _sorter(wanted), tell)
            except KeyboardInterrupt as error:
                pool.shutdown(wait=False, cancel_futures=True)
                said = "stopped; what was whole is kept, and the next run goes on from there"
                raise Stopped(said) from error
            except BaseException:
                # Nothing new begins; what runs beside it ends first.
                pool.shutdown(cancel_futures=True)
                raise
            pool.shutdown()
            self._prune()
        return {stage.name: self.entry(stage) for stage in ordered(wanted)}

    def _run(
        self, pool: ThreadPoolExecutor, sorter: TopologicalSorter[Stage], tell: Callable[[Stage, str, float], None]
    ) -> None:
        running: dict[Future[None], Stage] = {}
        sorter.prepare()
        while sorter.is_active():
            for stage in sorter.get_ready():
                running[pool.submit(self._ensure, stage, tell)] = stage
            done, _left = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                sorter.done(running.pop(future))

    def _ensure(self, stage: Stage, tell: Callable[[Stage, str, float], None]) -> None:
        entry = self.entry(stage)
        if entry.is_dir():
            tell(stage, "cached", 0.0)
        else:
            tell(stage, "making", 0.0)
            began = time.monotonic()
            self._make(stage, entry)
            tell(stage, "made", time.monotonic() - began)
        (entry / _USED).touch()
        last = self._last(stage)
        last.parent.mkdir(exist_ok=True)
        last.write_text(json.dumps(stage.all_inputs))

    def _make(self, stage: Stage, entry: Path) -> None:
        folder = self.folder / f"{UNFINISHED}{entry.name}"
        folder.mkdir(mode=0o700)  # its set-user-ID programs are not for the users of this machine
        try:
            stage.make(folder, {one.name: self.entry(one) for one in stage.after})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        os.rename(folder, entry)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ImageError(
                    f"another build is at work in {self.folder}: let it end, or give this one a cache"
                    " of its own with KOS_MEDIA_CACHE"
                ) from error
            yield

    def _sweep(self) -> None:
        """Remove what a killed build left."""
        for path in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path)

    def _prune(self) -> None:
        for mark in self.folder.glob(f"*/{_USED}"):
            if time.time() - mark.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(mark.parent)


def digest_of(paths: Iterable[Path], base: Path) -> str:
    """One digest over the names, modes and contents of files and links, as seen from `base`."""
    total = hashlib.sha256()
    for path in sorted(paths):
        mode = "link" if path.is_symlink() else f"{path.stat().st_mode & 0o111 != 0}"
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        total.update(json.dumps([str(path.relative_to(base)), mode, hashlib.sha256(content).hexdigest()]).encode())
    return total.hexdigest()
