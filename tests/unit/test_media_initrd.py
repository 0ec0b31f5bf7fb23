# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is looked for in an initrd, and how dracut is called for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kos_image import initrd
from kos_image.definition import Initrd
from kos_image.errors import ImageError

WANTED = Initrd(add=["systemd", "kos-live"], omit=["lvm"], drivers=["erofs"], install=["/etc/mke2fs.conf", "sfdisk"])
LISTING = """\
Arguments:  --add 'systemd kos-live' --install '/etc/mke2fs.conf sfdisk'

dracut modules:
systemd
kos-live
========================================================================
lrwxrwxrwx   1 root root      23 Nov 20 02:11 init -> usr/lib/systemd/systemd
-rw-r--r--   1 root root     812 Nov 20 02:11 etc/mke2fs.conf
-rwxr-xr-x   1 root root  133504 Apr 13  2026 usr/lib/systemd/systemd
-rwxr-xr-x   1 root root  225672 Jun 29 21:37 usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1
lrwxrwxrwx   1 root root       6 Jun 29 21:37 usr/sbin/sfdisk -> fdisk2
========================================================================
"""


class Tools:
    """A toolbox whose dracut leaves `listing` and `unknown`."""

    def __init__(self, listing=LISTING, unknown=""):
        self.listing, self.unknown, self.called = listing, unknown, []

    def run(self, argv, folders, environ):
        self.called = [argv, environ]
        for name, content in {"list": self.listing, "unknown": self.unknown, "initrd": "", "kver": "6\n"}.items():
            (folders["initrd"] / name).write_text(content)
        return ""


def test_a_whole_initrd_lacks_nothing():
    assert list(initrd.lacking(WANTED, LISTING)) == []


@pytest.mark.parametrize(
    ("gone", "lacks"),
    [
        ("usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", "a loader of programs"),
        ("2026 usr/lib/systemd/systemd", "systemd"),
        ("\nkos-live\n", "the module kos-live"),
        ("usr/sbin/sfdisk -> fdisk2", "sfdisk"),
        ("02:11 etc/mke2fs.conf", "/etc/mke2fs.conf"),
    ],
)
def test_what_dracut_leaves_out_without_a_word_is_found(gone, lacks):
    assert list(initrd.lacking(WANTED, LISTING.replace(gone, "\n"))) == [lacks]


def test_no_listing_at_all_lacks_everything():
    assert len(list(initrd.lacking(WANTED, ""))) == 6


def test_dracut_is_told_what_the_definition_says_and_nothing_that_is_empty(tmp_path):
    tools = Tools()
    initrd.make(tools, WANTED, Path("/root"), tmp_path)
    argv, environ = tools.called
    assert argv[2:] == [
        "--add",
        "systemd kos-live",
        "--omit",
        "lvm",
        "--add-drivers",
        "erofs",
        "--install",
        "/etc/mke2fs.conf sfdisk",
        "--compress",
        "zstd -3 -T0 -q",
    ]
    assert environ == {"DRIVERS": "erofs"}
    assert {path.name for path in tmp_path.iterdir()} == {"initrd", "kver"}
    bare = Initrd(add=["systemd"])
    initrd.make(tools, bare, Path("/root"), tmp_path)
    assert tools.called[0][2:] == ["--add", "systemd", "--compress", "zstd -3 -T0 -q"]


def test_a_driver_that_the_kernel_lacks_is_refused_by_name(tmp_path):
    with pytest.raises(ImageError, match=r"an initrd without ehci_pci: correct `initrd` in the definition"):
        initrd.make(Tools(unknown="ehci_pci\n"), WANTED, Path("/root"), tmp_path)
