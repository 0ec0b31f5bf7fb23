# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Debian tree of exactly the locked packages: how mmdebstrap is called, and the repository that it takes them from.

It sees nothing else: no mirror, no network, no package that the lock does not name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from . import packages
from .packages import Package

REPOSITORY, DEBS = "repository", "debs"
# What nobody reads on a machine that people reach by a console. Licences stay.
EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
_KEPT = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")
# INITRD=No: Debian's kernel packages then leave the initrd to us (kernel-package's word, which dracut's hook obeys).
ENVIRON = {"INITRD": "No", "DEBIAN_FRONTEND": "noninteractive"}


def write_index(locked: Sequence[Package], debs: Path, folder: Path) -> None:
    """The index in `folder` of the package files in `debs`, as apt sees them side by side as DEBS and REPOSITORY."""
    folder.mkdir(parents=True)
    (folder / "Packages").write_text(packages.index(locked, debs, DEBS))


def arguments(
    locked: Sequence[Package], architecture: str, base: str, target: str, options: Sequence[str]
) -> list[str]:
    """mmdebstrap's, for a tree of `locked` at `target`; the folder `base` has REPOSITORY and DEBS."""
    paths = [
        *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED),
        *(f"--dpkgopt=path-include={path}" for path in _KEPT),
    ]
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        f"--architectures={architecture}",
        f"--include={','.join(package.name for package in locked)}",
        # Nothing is downloaded, and whether programs of the architecture run here is asked before a build begins.
        "--skip=download/empty,check/empty,check/qemu",
        "--dpkgopt=force-unsafe-io",
        *paths,
        *options,
        "",
        target,
        # The index is ours, made of the lock: it is the lock that proves the files, by their digests.
        f"deb [trusted=yes] copy:{quote(base)} {REPOSITORY}/",
    ]
