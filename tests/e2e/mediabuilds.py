# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kos-image` as a user calls it, with a signing key and a package lock of the tests' own."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from kos_image.toolbox import Toolbox

BIN = Path(sys.executable).parent
PROFILE = "development"
# A cold build needs four minutes of two cores; arm64, whose packages are configured by an emulator, half an hour.
PATIENCE = 900


@dataclass(frozen=True)
class Builder:
    """Builds media. `own` holds the key and the lock; `cache` is where stages go, the user's where it is None."""

    own: Path
    cache: Path | None = None
    patience: int = PATIENCE

    @property
    def environment(self):
        """That of a user, but for what is the tests' own."""
        own = {"XDG_CONFIG_HOME": str(self.own / "config"), "KOS_MEDIA_LOCK": str(self.own / "locks")}
        cache = {"KOS_MEDIA_CACHE": str(self.cache)} if self.cache else {}
        return {**os.environ, **own, **cache, "LC_ALL": "C.UTF-8", "COLUMNS": "160"}

    def elsewhere(self, cache):
        """The same in another folder, which has nothing but the packages."""
        found = dataclasses.replace(self, cache=cache)
        cache.mkdir()
        subprocess.run(["cp", "-al", self.packages, cache / "debs"], check=True)
        return found

    @property
    def folder(self):
        """The cache."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return self.cache or Path(os.environ.get("KOS_MEDIA_CACHE") or home / "kos" / "media")

    @property
    def packages(self):
        """The folder of fetched packages."""
        return self.folder / "debs"

    def run(self, *argv, check=True, within=()):
        """`kos-image …`, within another command where one is given; fails the test where it fails."""
        line = [*within, str(BIN / "kos-image"), *map(str, argv)]
        with self._alone():
            done = subprocess.run(
                line, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
                timeout=self.patience,
            )  # fmt: skip
        if check and done.returncode:
            pytest.fail(f"{' '.join(line)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    @contextlib.contextmanager
    def _alone(self):
        """Wait for the builds of other tests: a cache serves one, and tells a second one so."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "tests.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def stick(self, folder):
        """The stick that KOS_TEST_STICK names, or the one in a folder, built where it is not there yet."""
        image = Path(os.environ.get("KOS_TEST_STICK") or folder / "stick.raw")
        if not image.exists():
            self.run("lock")
            self.build("usb", image)
        return image

    def tool(self, work, *argv):
        """The output of a program of the toolbox that the media were made in; it sees `work` as /build/work."""
        tree = max((self.folder / "stages").glob("toolbox-*/tree"), key=os.path.getmtime)
        return Toolbox(tree, 0).run(argv, {"work": work})

    def argv(self, output, to, *options):
        """The words of a build."""
        return ["build", "--profile", PROFILE, "--output", output, "--to", str(to), *map(str, options)]

    def build(self, output, to, *options, **how):
        """Build a medium; what `kos-image` says of it."""
        return json.loads(self.run(*self.argv(output, to, *options), "--json", **how).stdout)

    def interrupted(self, number, when, output, to):
        """A build that gets a signal when a stage is being made; what it printed, and how it ended."""
        # What was started in the background of a script ignores Ctrl-C, and so would its children.
        line = ["env", "--default-signal=INT", str(BIN / "kos-image"), *self.argv(output, to)]
        process = subprocess.Popen(
            line, env=self.environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        stages = self.folder / "stages"
        while not list(stages.glob(f"making-{when}-*")):
            try:
                process.wait(0.2)
                pytest.fail(f"it ended before {when} was made:\n{process.stdout.read()}")
            except subprocess.TimeoutExpired:
                pass
        # To all of its processes, as a terminal does.
        os.killpg(process.pid, number)
        said, _ = process.communicate(timeout=60)
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        return said, process.returncode
