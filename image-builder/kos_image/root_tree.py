# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage `root`: the locked packages, installed, as one `root.tar` that depends on the lock alone.

It knows no mirror, no machine and no secret: no sources, no host keys, no machine's id, no password.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from . import bootstrap
from .packages import Package
from .toolbox import BUILD, Toolbox

VERSION = 1  # of the recipe below: an input of the stage
TAR = "root.tar"
_CLEAN = Path(__file__).with_name("clean-root.sh")


def make(
    toolbox: Toolbox, locked: Sequence[Package], asked: Collection[str], architecture: str, debs: Path, folder: Path
) -> None:
    """Write `root.tar` into the empty `folder`. The files of `locked` are in `debs`; `asked` are not there as needs of
    others, so that apt never removes them by itself. Raises ImageError.
    """
    bootstrap.write_index(locked, debs, folder / bootstrap.REPOSITORY)
    (folder / "automatic").write_text("\n".join(one.name for one in locked if one.name not in asked))
    (folder / "clean").write_bytes(_CLEAN.read_bytes())
    hooks = [
        f'--customize-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" xargs apt-mark auto <{BUILD}/root/automatic >/dev/null',
        f'--customize-hook=sh {BUILD}/root/clean "$1"',
    ]
    argv = bootstrap.arguments(locked, architecture, BUILD, f"{BUILD}/root/{TAR}", hooks)
    folders = {"root": folder, bootstrap.REPOSITORY: folder / bootstrap.REPOSITORY, bootstrap.DEBS: debs}
    toolbox.run(argv, folders, bootstrap.ENVIRON)
    (folder / bootstrap.REPOSITORY / "Packages").unlink()
    (folder / bootstrap.REPOSITORY).rmdir()
    for name in ("automatic", "clean"):
        (folder / name).unlink()
