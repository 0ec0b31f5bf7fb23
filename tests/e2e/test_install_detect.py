# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the installer sees on disks that others have used, with a real kernel, udev and the tools of Debian 13."""

from __future__ import annotations

import json
import os

import diskmachine
import mediums
import pytest
from diskmachine import Disk

from kos_install.answers import Answers
from kos_install.errors import Unplannable
from kos_install.hardware.model import Machine
from kos_install.storage.actions import Table
from kos_install.storage.plan import plan

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP nobody"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=mediums.unavailable() or "a lab is here"),
]

GIB = 1 << 30
# A laptop with Windows' table, a locked partition and LVM; two members of a RAID, one of them in an MBR table.
USED = """
set -e
A=/dev/disk/by-id/virtio-LAPTOP B=/dev/disk/by-id/virtio-RAID-1 C=/dev/disk/by-id/virtio-RAID-2
sfdisk -q --label gpt $A << END
,100M,U
,16M,E3C9E316-0B5C-4DB8-817D-F92DF00215AE
,300M,L
,300M,E6D6D379-F507-44C2-A23C-238F2A3DF928
END
echo ',300M,R' | sfdisk -q --label gpt $B
printf ',300M,fd\\n,300M,83\\n' | sfdisk -q --label dos $C
udevadm settle
mkfs.vfat -n ESP $A-part1
echo -n old | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $A-part3 -
echo -n old | cryptsetup open --key-file=- $A-part3 locked
pvcreate -q $A-part4; vgcreate -q vg $A-part4; lvcreate -qy -L 100M -n home vg
mdadm -q --create /dev/md/nas --run --level 1 --raid-devices 2 --metadata 1.2 $B-part1 $C-part1 < /dev/null
mkfs.btrfs -q -f -L PHOTOS $C-part2
mount $C-part2 /mnt
udevadm settle
"""
LOOK = """
cd /run/code; export PYTHONPATH=installer:collections
python3 -c 'from kos_install.hardware.detect import detect; print(detect().model_dump_json())'
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Every disk by its serial number, and the machine; read once."""
    media, folder = mediums.Media(f"detect{os.getpid()}"), tmp_path_factory.mktemp("disks")
    disks = [Disk(folder / name, name, 24 * GIB) for name in ("LAPTOP", "RAID-1", "RAID-2", "BLANK")]
    disks += [Disk(folder / f"twin{number}", "TWIN", 9 * GIB) for number in (1, 2)]
    with diskmachine.booted(media.lab, media.apt, disks) as machine:
        machine.run(USED)
        said = machine.run(LOOK)
    here = Machine.model_validate(json.loads(said.splitlines()[-1]))
    return {disk.serial: disk for disk in here.disks}, here


def test_the_disk_of_the_running_system_is_never_offered(seen):
    disks, _here = seen
    assert [serial for serial, disk in disks.items() if disk.medium] == ["root"]


def test_a_disk_that_is_blank(seen):
    disk = seen[0]["BLANK"]
    assert (disk.size, disk.bus, disk.table, disk.holds, disk.partitions) == (24 * GIB, "virtio", "", "", [])
    assert "virtio-BLANK" in disk.by_id and not disk.removable and not disk.read_only


def test_a_laptop_that_others_used(seen):
    disk = seen[0]["LAPTOP"]
    assert disk.table == "gpt" and [part.number for part in disk.partitions] == [1, 2, 3, 4]
    assert [part.os for part in disk.partitions] == ["EFI system partition", "reserved by Windows", "", ""]
    assert [part.holds for part in disk.partitions] == ["filesystem", "", "luks", "lvm"]
    assert disk.partitions[0].start == 1 << 20 and disk.partitions[0].size == 100 << 20
    assert disk.holders == ["locked", "vg-home"] and all(part.uuid for part in disk.partitions)


def test_a_raid_over_two_disks_with_different_tables(seen):
    one, two = seen[0]["RAID-1"], seen[0]["RAID-2"]
    assert (one.table, two.table) == ("gpt", "dos")
    assert one.partitions[0].holds == two.partitions[0].holds == "raid"
    assert one.partitions[0].fs_uuid == two.partitions[0].fs_uuid != ""
    assert one.holders == two.holders and len(one.holders) == 1 and one.holders[0].startswith("md")
    photos = two.partitions[1]
    assert (photos.filesystem, photos.fs_label, photos.os, photos.mounted) == (
        "btrfs", "PHOTOS", "Linux (btrfs)", "/mnt",
    )  # fmt: skip


def test_what_was_seen_can_be_planned(seen):
    _disks, here = seen
    here = here.model_copy(update={"firmware": "uefi"})

    def asked(serial, **storage):
        storage = {"disk": {"serial": serial}, **storage}
        return Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}, "storage": storage})

    beside = plan(asked("LAPTOP", layout="free_space"), here)
    (table,) = [action for action in beside.actions if isinstance(action, Table)]
    assert [part.number for part in table.preserve] == [1, 2, 3, 4] and [part.number for part in table.make] == [
        5,
        6,
        7,
    ]
    wiped = plan(asked("RAID-1"), here)
    assert any("member of a RAID" in line for line in wiped.warnings)
    assert any("hold one RAID" in line and "RAID-2" in line for line in wiped.warnings)
    with pytest.raises(Unplannable, match="has the same serial number"):
        plan(asked("TWIN"), here)
    with pytest.raises(Unplannable, match="this system was started from it"):
        plan(asked("root"), here)
