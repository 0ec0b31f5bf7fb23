# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages of a build share: what was asked for, the locks, the caches, the toolbox."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

from ansible_collections.kind.kos.cli.bundles.build import Wanted

from . import disk, host, packages, python_site, toolbox
from .asked import Asked
from .definition import Definition
from .packages import Lock, Package
from .stages import Folders, Stage, digest_of
from .toolbox import Toolbox

TOOLBOX = "toolbox"


@dataclass(frozen=True)
class Kit:
    """`lock` is the target's, `tools` that of this machine, whose architecture is `own`; `folder` is the cache.

    `generations`: those of the profile.
    """

    asked: Asked
    lock: Lock
    tools: Lock
    own: str
    folder: Path
    definition: Definition | None = None
    generations: Sequence[Wanted] = ()

    @property
    def medium(self) -> Definition:
        """The definition, where what is made is a medium."""
        if self.definition is None:
            raise ValueError(f"{self.asked.output} is no medium")
        return self.definition

    @property
    def epoch(self) -> int:
        """The date of everything that is made, in seconds since 1970: that of the packages."""
        return self.lock.made

    @property
    def seed(self) -> UUID:
        """What all UUIDs come from."""
        return disk.seed(self.asked.profile, self.asked.output, self.asked.architecture)

    def debs(self, wanted: Sequence[Package]) -> Path:
        """The folder with the files of these packages, fetched and proved. Raises ImageError."""
        return packages.fetch(wanted, self.folder)

    def box(self, made: Folders) -> Toolbox:
        """The toolbox, for a stage that is made after it."""
        return Toolbox(made[TOOLBOX] / "tree", self.epoch, host.scratch(self.folder))

    @cached_property
    def source(self) -> str:
        """All that kai, kos-install and kos-image are made of, as one input of a stage."""
        return python_site.source_digest()

    @cached_property
    def toolbox(self) -> Stage:
        """The stage that every other one needs."""
        wanted = self.tools.of(toolbox.SET)

        def make(folder: Path, _made: Folders) -> None:
            toolbox.make(wanted, self.own, self.debs(wanted), self.tools.made, folder)

        inputs = {
            "packages": self.tools.digest(toolbox.SET),
            "made": str(self.tools.made),
            "recipe": code("bootstrap.py", "toolbox.py", "toolbox.sh"),
        }
        return Stage(TOOLBOX, "making the toolbox, once", make, inputs)


def settings(*values: Any) -> str:
    """Plain settings as one input of a stage."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def code(*names: str) -> str:
    """Files of the builder as one input of a stage: what it does, and the scripts that do it."""
    return settings([hashlib.sha256((Path(__file__).parent / name).read_bytes()).hexdigest() for name in names])


def files(folder: Path) -> str:
    """All files below a folder as one input of a stage."""
    found = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return digest_of((path for path in found if path.is_file() or path.is_symlink()), folder)
