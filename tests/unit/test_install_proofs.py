# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proved of a disk before it may start: what lacks is as wrong as what is there and should not be."""

from __future__ import annotations

import pytest
from golden_installs import answers
from installs import BLANK, DESK

from kos_install.actions import mounts, proofs
from kos_install.hardware.model import Nic
from kos_install.storage.plan import plan

OTHER = BLANK.model_copy(update={"path": "/dev/sdd", "serial": "WD-2"})
MACHINE = DESK.model_copy(update={"disks": [BLANK, OTHER]})
PLAN = plan(answers(storage={"disk": {"serial": "WD-1"}, "data": {"serial": "WD-2"}}), MACHINE)


@pytest.fixture
def etc(tmp_path):
    """The tables that an install writes."""
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/cmdline").write_text(" ".join(mounts.arguments(PLAN)) + "\n")
    for entry in mounts.entries(PLAN):
        (tmp_path / entry.path.rpartition("/")[2]).write_text(entry.content)
    return tmp_path


def wrong(etc):
    return [one.what for one in proofs._opened(PLAN, etc) if not one.good]


def test_what_an_install_writes_is_right(etc):
    assert wrong(etc) == []


@pytest.mark.parametrize("content", ["", "kos-data UUID=other none luks\n", None])
def test_a_disk_that_crypttab_does_not_open_is_wrong(etc, content):
    if content is None:
        with (etc / "crypttab").open("a") as file:
            file.write("other UUID=x none\n")
    else:
        (etc / "crypttab").write_text(content)
    assert wrong(etc) == ["crypttab opens what is there, by UUID"]


@pytest.mark.parametrize("line", ["", "rd.luks.name=other=kos-root"])
def test_a_root_that_the_initrd_does_not_open_is_wrong(etc, line):
    (etc / "kernel/cmdline").write_text(line)
    assert wrong(etc) == ["the initrd is told to open the root's disks, and no other"]


def test_machines_alike_get_uuids_of_their_own():
    disk = BLANK.model_copy(update={"serial": "", "by_id": []})
    asked = answers(storage={"disk": {"path": disk.path}})
    bare = DESK.model_copy(update={"disks": [disk], "nics": []})
    seen = {
        plan(asked, machine).digest()
        for machine in (
            bare,
            bare.model_copy(update={"uuid": "1"}),
            bare.model_copy(update={"uuid": "2"}),
            bare.model_copy(update={"nics": [Nic(name="a", mac="52:54:00:00:00:01")]}),
        )
    }
    assert len(seen) == 4
    assert plan(asked, bare) == plan(asked, bare)
