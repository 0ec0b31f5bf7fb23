# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes long is made once and kept in /var/cache/kos-lab: one entry a recipe, whole or not there at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..plugins.plugin_utils.apt import AptConfiguration
from . import cgroup, state
from .command import attempt, run
from .errors import LabError
from .identity import CACHE, Lab

SUITE = "trixie"
KEPT_SECONDS = 86400

Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What an entry is made of. Raise `version` when the code that makes it changes: it is part of the key."""

    kind: str
    version: int
    variant: str
    packages: tuple[str, ...]

    def key(self, apt: AptConfiguration, arch: str) -> str:
        """What makes two entries equal: packages, the way to them, architecture, version."""
        parts = [self.version, SUITE, self.variant, self.packages, arch, asdict(apt)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Workshop:
    """An entry while it is made: its folder, the way to packages, and the lock that guards it all."""

    lab: Lab
    apt: AptConfiguration
    folder: Path
    lock: int

    def debootstrap(self, variant: str, packages: Sequence[str], tree: Path, *options: str) -> None:
        """Install packages into a new tree. Raises LabError with what mmdebstrap said."""
        configuration, sources = self.folder / "apt.conf", self.folder / "debian.sources"
        configuration.write_text("\n".join(self.apt.options) + "\n")
        sources.write_text(self.apt.sources(SUITE))
        command = ["mmdebstrap", "--mode=root", f"--variant={variant}", f"--include={','.join(packages)}"]
        self.run([*command, f"--aptopt={configuration}", *options, SUITE, str(tree), str(sources)])
        configuration.unlink()
        sources.unlink()

    def run(self, argv: list[str]) -> str:
        """The output of `argv`, run in mounts and a control group of its own. Raises LabError.

        Killed half-way it leaves neither mount nor process. It holds the lock too: where only we are killed, nobody
        sweeps or builds under its feet.
        """
        group = cgroup.make(f"{self.lab.cgroup}/build")
        private = ["unshare", "--mount", "--propagation", "slave"]
        done = attempt(cgroup.inside(group, [*private, *argv]), files=[self.lock])
        cgroup.remove(f"{self.lab.cgroup}/build")
        if done.returncode:
            raise LabError(f"{argv[0]} failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))
        return done.stdout


def ensure(
    lab: Lab, recipe: Recipe, apt: AptConfiguration, make: Callable[[Workshop], None], announcement: str, say: Say
) -> Path:
    """The entry of a recipe, made now if need be, after the announcement. Raises LabError."""
    entry = CACHE / f"{recipe.kind}-{recipe.key(apt, architecture())}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        _wait_for(lock.fileno(), say)
        _sweep()
        if not entry.is_dir():
            say(announcement)
            _make(Workshop(lab, apt, CACHE / f"building-{entry.name}", lock.fileno()), make, entry)
        (entry / "used").touch()
        _prune()
    return entry


def _make(workshop: Workshop, make: Callable[[Workshop], None], entry: Path) -> None:
    workshop.folder.mkdir()
    try:
        make(workshop)
    except LabError:
        shutil.rmtree(workshop.folder)
        raise
    (workshop.folder / "used").touch()
    workshop.folder.chmod(0o700)  # its set-user-ID programs are not for the users of this machine
    os.rename(workshop.folder, entry)


def architecture() -> str:
    """This machine's, in Debian's words."""
    return run(["dpkg", "--print-architecture"]).strip()


def entries(kind: str) -> list[Path]:
    """The folders of one kind; the time of each is when it was made."""
    return sorted(CACHE.glob(f"{kind}-*"))


def sweep() -> None:
    """Remove what a killed `ensure` left, unless one is at work."""
    if not (CACHE / "lock").exists():
        return
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _sweep()


def _wait_for(lock: int, say: Say) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another lab is filling the cache; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _sweep() -> None:
    for path in CACHE.glob("building-*"):
        shutil.rmtree(path)


def _prune() -> None:
    """Remove entries that no node stands on and nobody asked for lately: another lab may be about to."""
    in_use = [Path(root) for root in state.roots_in_use()]
    for mark in CACHE.glob("*/used"):
        entry = mark.parent
        unasked = time.time() - mark.stat().st_mtime
        if unasked > KEPT_SECONDS and not any(root.is_relative_to(entry) for root in in_use):
            shutil.rmtree(entry)
