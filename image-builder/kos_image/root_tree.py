# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage `root`: the locked packages, installed, as one `root.tar` that depends on the lock alone.

It knows no mirror, no machine and no secret: no sources, no host keys, no machine's id, no password.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from . import bootstrap, host, native
from .packages import Package
from .toolbox import BUILD, PATH, Toolbox

TAR = "root.tar"
RECIPES, RECIPES_NAME = Path(__file__).parent, "recipes"  # where scripts lie, and what a program of the toolbox sees


def make(
    toolbox: Toolbox, locked: Sequence[Package], asked: Collection[str], architecture: str, debs: Path, folder: Path
) -> None:
    """Write `root.tar` into the empty `folder`. The files of `locked` are in `debs`; what is not `asked` for is there
    as a need of others, and apt may remove it with them. Raises ImageError.
    """
    work = folder / "work"
    bootstrap.write_index(locked, debs, work / bootstrap.REPOSITORY)
    (work / "automatic").write_text("\n".join(one.name for one in locked if one.name not in asked))
    hooks = [
        f'--customize-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" xargs apt-mark auto <{BUILD}/work/automatic >/dev/null',
        f'--customize-hook=sh {BUILD}/{RECIPES_NAME}/clean-root.sh "$1"',
    ]
    environ = dict(bootstrap.ENVIRON)
    if (host.architecture(), architecture) == ("amd64", "arm64"):
        hooks = [*_lent("extract", "lend"), *_lent("essential", "bind"), *_lent("customize", "take"), *hooks]
        hooks.append(f"--dpkgopt={native.DPKG_OPTION}")
        environ["PATH"] = f"{native.PATH}:{PATH}"
    argv = bootstrap.arguments(locked, architecture, BUILD, f"{BUILD}/root/{TAR}", hooks)
    repository = {bootstrap.REPOSITORY: work / bootstrap.REPOSITORY, bootstrap.DEBS: debs}
    toolbox.run(argv, {"root": folder, "work": work, RECIPES_NAME: RECIPES, **repository}, environ)
    shutil.rmtree(work)


def _lent(when: str, what: str) -> list[str]:
    """A hook that lends the tree of another architecture native programs, or takes them back."""
    return [f'--{when}-hook=python3 -B {BUILD}/{RECIPES_NAME}/native.py {what} "$1"']
