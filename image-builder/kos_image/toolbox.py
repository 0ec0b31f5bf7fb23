# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The toolbox: a tree of Debian 13's tools, made once of locked packages, so that the host may be another Debian.

A program runs in it with mounts and processes of its own: killed half-way, it leaves neither behind.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from . import bootstrap
from .command import run
from .packages import Package
from .stages import UNFINISHED

SET = "tools"  # of the lock
PACKAGES = (
    "apt-utils",
    "binutils",
    "cpio",
    "cryptsetup-bin",
    "dosfstools",
    "dracut",
    "e2fsprogs",
    "efitools",
    "erofs-utils",
    "fdisk",
    "gpg",
    "grub-common",
    "kmod",
    "libarchive13t64",
    "mmdebstrap",
    "mtools",
    "openssl",
    "osslsigncode",
    "python3",
    "python3-pefile",
    "qemu-utils",
    "squashfs-tools",
    "systemd-boot-efi",
    "systemd-boot-tools",
    "systemd-repart",
    "systemd-ukify",
    "xz-utils",
    "zstd",
)
# What starts a PC's BIOS is made on PCs alone.
_BIOS = {"amd64": ("grub-pc-bin",)}
BUILD = "/build"  # where a program of the toolbox sees folders
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENTER = Path(__file__).with_name("toolbox.sh")
# Its processes end with it, and it ends with us, even where we are killed.
_APART = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child"),
)


def wanted(architecture: str) -> list[str]:
    """The packages of the toolbox of a machine."""
    return sorted((*PACKAGES, *_BIOS.get(architecture, ())))


@dataclass(frozen=True)
class Toolbox:
    """The tree, and the date of what is made in it. `scratch` is where programs have their /tmp; None is in memory."""

    tree: Path
    epoch: int
    scratch: Path | None = None

    def run(self, argv: Sequence[str], folders: Mapping[str, Path], environ: Mapping[str, str] | None = None) -> str:
        """The output of a program of the tree, which sees folder NAME as /build/NAME. Raises ImageError."""
        with self._scratch() as scratch:
            pairs = [word for name, folder in folders.items() for word in (name, str(folder))]
            start = [*_APART, "sh", str(_ENTER), str(self.tree), scratch, *pairs, "--", *argv]
            return _output(start, {"SOURCE_DATE_EPOCH": str(self.epoch), **(environ or {})}, argv[0])

    def _scratch(self) -> AbstractContextManager[str]:
        return TemporaryDirectory(prefix=UNFINISHED, dir=self.scratch) if self.scratch else nullcontext("")


def make(locked: Sequence[Package], architecture: str, debs: Path, epoch: int, folder: Path) -> None:
    """Fill the empty `folder`: its `tree` is the toolbox. `debs` has the files. Raises ImageError."""
    tree = folder / "tree"
    bootstrap.write_index(locked, debs, folder / bootstrap.REPOSITORY)
    (folder / bootstrap.DEBS).symlink_to(debs)
    made = bootstrap.arguments(locked, architecture, str(folder), str(tree), [])
    _output([*_APART, "--mount-proc", *made], {"SOURCE_DATE_EPOCH": str(epoch), **bootstrap.ENVIRON}, made[0])
    for mounted in ("build", "usr/lib/modules"):
        (tree / mounted).mkdir(exist_ok=True)
    (folder / bootstrap.DEBS).unlink()
    shutil.rmtree(folder / bootstrap.REPOSITORY)


def _output(argv: Sequence[str], environ: Mapping[str, str], name: str) -> str:
    """In a clean environment, so that nothing of this machine's gets into what is made."""
    return run(argv, {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "TZ": "UTC", **environ}, name)
