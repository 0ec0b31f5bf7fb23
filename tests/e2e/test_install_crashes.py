# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whenever the power goes during an install, the disk is complete, or does not start and can be gone on with.

One install of the real layout (GPT, FAT, LUKS2, btrfs) with a small system is recorded write by write, and every state
that a power cut could leave is judged from outside. `make e2e-install_crashes` takes 1,200 states, else a sample.
"""

from __future__ import annotations

import json
import os

import crashrun
import crashtable
import diskmachine
import diskplans
import mediums
import pytest
from crashoracle import COMPLETE, NOTHING, RESUMABLE, STARTS

pytestmark = pytest.mark.skipif(bool(mediums.unavailable()), reason=mediums.unavailable() or "a lab is here")

DISK = diskplans.target("/dev/vdc", "DISK-1", 2 * diskplans.GIB)
ESP = 128 * diskplans.MIB
STATES, SAMPLE, OF_A_CONTROL = 1200, 150, 150
APPLY = (
    "mkdir -p /usr/lib/kos/installed; cp -L /initrd.img /usr/lib/kos/installed/initrd; python3 tests/e2e/diskapply.py"
)
_tables = []


class Recorder:
    """Installs in a machine that records what is written to the disk."""

    def __init__(self, media, folder):
        self.media, self.folder = media, folder
        self.machine = diskmachine.ensure(media.lab, media.apt)
        self.image = diskmachine.system_image(self.machine, folder / "image")

    def install(self, name, sabotage=""):
        """The log of an install, and the disk as it ended."""
        disk, log = self.folder / f"{name}.disk", self.folder / f"{name}.log"
        disks = [
            diskmachine.Disk(disk, DISK["serial"], DISK["size"], log),
            diskmachine.Disk(self.image, "image"),
        ]
        asked = diskplans.asked(diskplans.startable(DISK, esp=ESP), sabotage=sabotage)
        with diskmachine.booted(self.media.lab, self.media.apt, disks) as machine:
            machine.run(APPLY, json.dumps(asked), seconds=600)
            # Else the machine is off before what it still had to write.
            machine.run("sync; sleep 1")
        return log, disk

    def crashes(self, title, number, sabotage=""):
        """Record an install, and judge what power cuts leave of it."""
        log, disk = self.install(title.replace(" ", "-"), sabotage)
        plan = {"actions": diskplans.startable(DISK, esp=ESP)}
        table = crashrun.run(
            title, self.machine, log, disk, json.dumps(plan), diskplans.PASSPHRASE, number, crashtable.SEED, self.image
        )
        _tables.append(table)
        print("\n".join([*table.lines(), *table.faults[:10], f"seed {crashtable.SEED}"]))
        if not table.faults:
            log.unlink()
        return table


@pytest.fixture(scope="module")
def recorder(tmp_path_factory):
    return Recorder(mediums.Media(f"crashes{os.getpid()}"), tmp_path_factory.mktemp("crashes"))


def test_no_power_cut_leaves_anything_in_between(recorder):
    table = recorder.crashes("an install", STATES if crashtable.FULL else SAMPLE)
    assert not table.faults
    # Of each kind there are some, or it was no install that was recorded.
    assert all(table.rows[what] for what in (COMPLETE, RESUMABLE, NOTHING))
    assert table.states >= (1000 if crashtable.FULL else SAMPLE)


@pytest.mark.parametrize(("sabotage", "fault"), [("no sync", STARTS), ("in place", "the journal has lost")])
def test_the_harness_sees_what_it_is_there_to_see(recorder, sabotage, fault):
    """Without the sync of the root before it may start; with a journal that is written over in place."""
    table = recorder.crashes(f"control, {sabotage}", OF_A_CONTROL, sabotage)
    assert any(fault in found for found in table.faults), table.faults
