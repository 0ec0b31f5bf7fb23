# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On which device a folder lies."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import facts

# As an installed node has it: subvolumes of one btrfs, whose devices no `stat` of a file agrees with.
INSTALLED = """\
22 1 0:21 /@ / rw,relatime shared:1 - btrfs /dev/mapper/kos-root rw,subvol=/@
30 22 0:21 /@var /var rw,relatime shared:9 - btrfs /dev/mapper/kos-root rw,subvol=/@var
41 22 254:1 / /efi rw - vfat /dev/vda1 rw
44 30 0:40 / /var/lib/my\\040data rw shared:20 master:3 - btrfs /dev/mapper/kos-old rw
45 30 0:44 / /var/lib/my\\040data rw - btrfs /dev/mapper/kos-data rw
"""


@pytest.mark.parametrize(
    "path, source",
    [
        ("/", "/dev/mapper/kos-root"),
        ("/var/lib/kos", "/dev/mapper/kos-root"),
        ("/efi", "/dev/vda1"),
        ("/efi/EFI", "/dev/vda1"),
        ("/efivars", "/dev/mapper/kos-root"),
        ("/var/lib/my data/deep", "/dev/mapper/kos-data"),
    ],
)
def test_what_is_mounted_where_a_path_lies(path, source):
    assert facts.mounted(path, INSTALLED) == source


def test_nothing_is_mounted_where_there_is_no_table():
    assert facts.mounted("/var", "") == ""


def test_what_is_not_there_yet_would_lie_where_its_parent_does():
    assert facts.device("/no/such/folder") == facts.device("/")


def test_a_device_is_found_by_its_name_without_dev():
    disks = [place for place in pathlib.Path("/sys/class/block").iterdir() if not (place / "dm").exists()]
    for disk in disks:
        number = facts._named(f"/dev/{disk.name}")
        assert f"{os.major(number)}:{os.minor(number)}" == (disk / "dev").read_text().strip()
    assert facts._named("tmpfs") == 0 and facts._named("/dev/mapper/none-such") == 0
