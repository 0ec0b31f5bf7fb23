# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which disk: exactly one, never the medium, and every refusal with its reasons."""

from __future__ import annotations

import golden_installs
import pytest
from golden_installs import machine

from kos_install.answers import DiskSelector
from kos_install.errors import Unplannable
from kos_install.hardware.model import Disk, Machine
from kos_install.storage.selection import candidates, described, pick

TB = Disk(
    path="/dev/nvme0n1",
    size=10**12,
    model="WD Blue SN570",
    serial="2147DT",
    bus="nvme",
    by_id=["nvme-WD_Blue_SN570_2147DT", "pci-0000:01:00.0-nvme-1"],
)
HALF = Disk(path="/dev/sda", size=5 * 10**11, model="CT500MX500", serial="2012E", bus="sata", by_id=["ata-CT500_2012E"])
TWO = Machine(disks=[TB, HALF])


def chosen(here=TWO, least=10**9, **selector):
    return pick(candidates(here, DiskSelector(**selector), least), "the system")


def refused(here=TWO, least=10**9, **selector):
    with pytest.raises(Unplannable) as caught:
        chosen(here, least, **selector)
    return str(caught.value)


@pytest.mark.parametrize(
    "selector",
    [
        {"serial": "2147DT"},
        {"by_id": "nvme-WD_Blue_SN570_2147DT"},
        {"by_id": "/dev/disk/by-id/nvme-WD_Blue_SN570_2147DT"},
        {"by_id": "/dev/disk/by-path/pci-0000:01:00.0-nvme-1"},
        {"by_id": "pci-0000:01:00.0-nvme-1"},
        {"path": "/dev/nvme0n1"},
        {"path": "/dev/disk/by-path/pci-0000:01:00.0-nvme-1"},
        {"model": "wd blue sn570 "},
        {"bus": "nvme"},
        {"min_gb": 501},
        {"max_gb": 1000, "min_gb": 1000},
        {"bus": "nvme", "serial": "2147DT", "max_gb": 1000},
    ],
)
def test_every_key_finds_its_disk(selector):
    """Complaint 8: by-path is a name like any other."""
    assert chosen(**selector) is TB


@pytest.mark.parametrize(
    ("selector", "unlike"),
    [
        ({"serial": "2147"}, "serial"),  # a part of it is not it
        ({"serial": "2147dt"}, "serial"),
        ({"by_id": "nvme-WD_Blue_SN570"}, "by_id"),
        ({"path": "/dev/nvme0"}, "path"),
        ({"model": "WD Blue"}, "model"),
        ({"serial": "2147DT", "bus": "sata"}, "bus"),
        ({"min_gb": 1001}, "min_gb"),
    ],
)
def test_nothing_is_nearly_the_one(selector, unlike):
    said = refused(**selector)
    assert (
        f"{described(TB)}: not the {unlike} {selector[unlike]} that was asked for" in said and described(HALF) in said
    )


def test_several_that_could_be_are_named_and_none_is_taken():
    """Complaint 8: no disk is picked because it comes first."""
    said = refused()
    assert said.startswith("2 disks could take the system")
    for part in (
        "WD Blue SN570",
        "1 TB",
        "serial 2147DT",
        "nvme-WD_Blue_SN570_2147DT",
        "CT500MX500",
        "500 GB",
        "2012E",
    ):
        assert part in said


@pytest.mark.parametrize("selector", [{}, {"serial": "600508b1001c"}, {"path": "/dev/sda"}])
def test_two_disks_with_one_serial_number_are_refused_even_by_name(selector):
    """They may be two paths to one disk, and nobody could tell them apart right before the wipe."""
    assert "/dev/sdb has the same serial number: unplug one" in refused(machine("multipath"), **selector)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"medium": True}, "this system was started from it"),
        ({"read_only": True}, "it is read-only"),
        ({"size": 0}, "nothing is in it"),
        ({"size": 10**8}, "too small: 1 GB needed"),
    ],
)
def test_what_cannot_be_is_refused_even_by_name(change, reason):
    here = Machine(disks=[TB.model_copy(update=change), HALF])
    assert chosen(here) is here.disks[1]
    assert reason in refused(here, serial="2147DT")


def test_what_can_be_pulled_out_is_only_taken_by_name():
    for change in ({"removable": True}, {"bus": "usb"}):
        here = Machine(disks=[TB.model_copy(update=change)])
        assert "it can be pulled out: name it" in refused(here)
        assert "it can be pulled out" in refused(here, min_gb=100)
        assert chosen(here, serial="2147DT").serial == "2147DT"


@pytest.mark.parametrize("name", golden_installs.names())
def test_the_medium_is_never_offered(name):
    here = machine(name)
    for disk in here.disks:
        for selector in ({}, {"path": disk.path}, *([{"serial": disk.serial}] if disk.serial else [])):
            found = candidates(here, DiskSelector(**selector), 0)
            assert not any(one.allowed and one.disk.medium for one in found)


def test_a_disk_has_one_role():
    found = candidates(TWO, DiskSelector(), 0, {"/dev/sda": "the system"})
    assert [one.reasons for one in found] == [(), ("it is taken for the system already",)]
