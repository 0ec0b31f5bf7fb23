# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which programs are lent to a tree of another architecture, and that it keeps none of them."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from test_media_toolbox import can_mount

from kos_image import native

BINARY = b"\x7fELF and the rest"


@pytest.fixture
def machine(tmp_path):
    """Programs of a machine: binaries, a script, a link."""
    for name in ("bin/sed", "bin/dpkg", "bin/dpkg-deb", "bin/dpkg-query", "bin/uname", "sbin/ldconfig", "bin/apt-get"):
        path = tmp_path / "usr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BINARY)
    (tmp_path / "usr/bin/which").write_text("#!/bin/sh\n")
    (tmp_path / "usr/bin/awk").symlink_to("sed")
    (tmp_path / "usr/sbin/useradd").write_bytes(BINARY)
    return tmp_path


def test_programs_that_know_their_architecture_are_not_lent(machine):
    assert [str(path) for path in native.programs(machine)] == [
        "/usr/bin/dpkg-deb",
        "/usr/bin/sed",
        "/usr/sbin/useradd",
    ]


def test_binding_waits_until_the_essential_packages_are_there():
    # Bound before, dpkg could not put the package's own file in its place.
    assert native.DPKG_OPTION == "pre-invoke=[ ! -x /native/bind ] || /native/bind"


@pytest.mark.skipif(not can_mount(), reason="only root has mounts of its own here")
def test_a_tree_is_lent_programs_and_left_as_it_was(tmp_path):
    tree = tmp_path / "tree"
    for name in ("usr/bin", "usr/sbin", "usr/lib"):
        (tree / name).mkdir(parents=True)
    for name in ("sed", "own"):
        (tree / "usr/bin" / name).write_text("of another architecture")
    # Its own shell, which stands here for one that is emulated.
    shutil.copy("/usr/bin/dash", tree / "usr/bin/dash")
    (tree / "usr/bin/sh").symlink_to("dash")
    (tree / "lib").symlink_to("usr/lib")
    (tree / "bin").symlink_to("usr/bin")
    before = {path: path.is_file() and path.read_bytes() for path in tree.rglob("*")}
    lent = subprocess.run(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", LEND, "lend", native.__file__, str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (lent.returncode, lent.stderr) == (0, "")
    assert lent.stdout.split() == ["by-path", "bound", "kept"]
    assert {path: path.is_file() and path.read_bytes() for path in tree.rglob("*")} == before


LEND = """
python3 -B "$1" lend "$2"
chroot "$2" /native/path/sed -n 's/x/by-path/p' <<'TEXT'
x
TEXT
python3 -B "$1" bind "$2"
echo x | chroot "$2" /usr/bin/sed 's/x/bound/'
case $(cat "$2/usr/bin/own") in 'of another architecture') echo kept ;; esac
python3 -B "$1" take "$2"
"""
