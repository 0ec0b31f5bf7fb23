# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage `initrd`: what a kernel starts with, and that kernel, out of a root tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .definition import Initrd
from .errors import ImageError
from .root_tree import RECIPES, RECIPES_NAME
from .toolbox import BUILD, Toolbox

MODULES = RECIPES / "dracut"
INITRD, KERNEL, KERNEL_VERSION, BOARDS = "initrd", "vmlinuz", "kver", "dtbs"
# zstd -15, which is dracut's, takes 12 s more of a processor for 4 % less; reading it takes the same time.
_COMPRESS = "zstd -3 -T0 -q"
_LOADER = re.compile(r"/ld-linux-[\w-]+\.so\.\d+$", re.MULTILINE)
_MODULES_OF = re.compile(r"^dracut modules:\n(.*?)^=+$", re.MULTILINE | re.DOTALL)


def make(toolbox: Toolbox, wanted: Initrd, root: Path, folder: Path) -> None:
    """Write `initrd`, `vmlinuz`, `kver` (the kernel's version) and, where the kernel has them, `dtbs` (of Raspberry
    Pis) into the empty `folder`. The folder `root` has `root.tar`. Raises ImageError.
    """
    lists = {
        "--add": wanted.add,
        "--omit": wanted.omit,
        "--add-drivers": wanted.drivers,
        "--install": wanted.install,
        "--compress": [_COMPRESS],
    }
    argv = ["bash", f"{BUILD}/{RECIPES_NAME}/make-initrd.sh"]
    argv += [word for option, values in lists.items() if values for word in (option, " ".join(values))]
    folders = {"root": root, RECIPES_NAME: RECIPES, INITRD: folder}
    toolbox.run(argv, folders, {"DRIVERS": " ".join(wanted.drivers)})
    lacks = [*lacking(wanted, (folder / "list").read_text()), *(folder / "unknown").read_text().split()]
    if lacks:
        raise ImageError(
            f"dracut made an initrd without {', '.join(lacks)}: correct `initrd` in the definition of the medium, "
            "or add the package that it comes from"
        )
    for name in ("list", "unknown"):
        (folder / name).unlink()


def lacking(wanted: Initrd, listing: str) -> Iterator[str]:
    """What must be in an initrd and is not, by the output of lsinitrd: dracut ends well without."""
    if not _LOADER.search(listing):
        yield "a loader of programs"
    if not re.search(r"\d usr/lib/systemd/systemd$", listing, re.MULTILINE):
        yield "systemd"
    found = _MODULES_OF.search(listing)
    modules = found[1].split() if found else []
    yield from (f"the module {name}" for name in wanted.add if name not in modules)
    for name in wanted.install:
        if not re.search(rf"[ /]{re.escape(name.lstrip('/'))}( -> .*)?$", listing, re.MULTILINE):
            yield name
