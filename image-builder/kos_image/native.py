# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lend a tree of another architecture this machine's programs while it is installed: its own are emulated, and slow.

What unpacks, compiles and reads texts does the same on any architecture, so it runs natively, bound over the tree's
own files; what tells the architecture, or knows it, stays the tree's. The tree has the same bytes either way. Measured
on 255 packages of arm64, with Perl lent too: 600 s of a processor emulated, 108 s so, and 33 s for those of amd64.

A script for hooks of mmdebstrap, in the toolbox: `native.py lend|bind|take TREE`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = "native"  # in the tree, as long as it is lent to
# Where programs of amd64 look for their loader and libraries; a tree of arm64 has neither.
_LIBRARIES = ("usr/lib64", "usr/lib/x86_64-linux-gnu")
_PROGRAMS = ("usr/bin", "usr/sbin")
# They know their own architecture, or speak of it; Perl looks for its modules by it, and a tree may have few of them.
_OWN = ("apt", "arch", "dpkg", "getconf", "ld", "lscpu", "mmdebstrap", "perl", "qemu", "setarch", "uname")
_NATIVE_DPKG = ("dpkg-deb", "dpkg-split")  # these unpack and know nothing
# dpkg runs it before each of its own runs, in the tree: programs that it has unpacked since are bound then. A file can
# only be bound once it will not be unpacked again, which the essential packages are.
BIND = f"""\
#!/bin/sh
while read -r program; do
  [ ! -f "$program" ] || [ -L "$program" ] || [ "$program" -ef "/{FOLDER}$program" ] ||
    /{FOLDER}/usr/bin/mount --bind "/{FOLDER}$program" "$program"
done </{FOLDER}/programs
"""
DPKG_OPTION = f"pre-invoke=[ ! -x /{FOLDER}/bind ] || /{FOLDER}/bind"
PATH = f"/{FOLDER}/path"  # before the essential packages are there, programs are found here


def lend(tree: Path) -> None:
    """Bring in the programs and their libraries; nothing runs them yet but by PATH."""
    folder = tree / FOLDER
    for name in (FOLDER, *_LIBRARIES):
        (tree / name).mkdir()
    (tree / "lib64").symlink_to("usr/lib64")
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(folder))
    for name in _LIBRARIES:
        _mount("--bind", f"/{name}", str(tree / name))
    for name in ("usr", "path"):
        (folder / name).mkdir()
    _mount("--bind", "/usr", str(folder / "usr"))
    lent = list(programs(Path("/")))
    (folder / "programs").write_text("".join(f"{program}\n" for program in lent))
    for program in lent:
        (folder / "path" / program.name).symlink_to(f"/{FOLDER}{program}")


def programs(root: Path) -> Iterator[Path]:
    """The programs of this machine that do in any tree what the tree's own would, by their paths in it."""
    for folder in _PROGRAMS:
        for path in sorted((root / folder).iterdir()):
            own = path.name.startswith(_OWN) and path.name not in _NATIVE_DPKG
            if path.is_file() and not path.is_symlink() and not own and _is_binary(path):
                yield Path("/", path.relative_to(root))


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def bind(tree: Path) -> None:
    """Put the programs in the place of the tree's, which are unpacked for good by now."""
    script = tree / FOLDER / "bind"
    script.write_text(BIND)
    script.chmod(0o755)
    subprocess.run(["chroot", str(tree), f"/{FOLDER}/bind"], check=True)


def take(tree: Path) -> None:
    """Leave the tree with nothing of what was lent to it."""
    lent = (tree / FOLDER / "programs").read_text().split()
    ours = [str(tree / name) for name in (FOLDER, f"{FOLDER}/usr", *_LIBRARIES)]
    ours += [f"{tree}{program}" for program in lent]
    for point in reversed(_mounted()):
        if point in ours:
            subprocess.run(["umount", point], check=True)
    (tree / "lib64").unlink()
    for name in (FOLDER, *_LIBRARIES):
        (tree / name).rmdir()


def _mounted() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    os.umask(0o022)
    {"lend": lend, "bind": bind, "take": take}[sys.argv[1]](Path(sys.argv[2]))
