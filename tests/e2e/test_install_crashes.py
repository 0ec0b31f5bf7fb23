# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whenever the power goes during an install, the disk is complete, or does not start and can be gone on with.

One install of the real layout (GPT, FAT, LUKS2, btrfs) with a small system is recorded write by write, and every state
that a power cut could leave is judged from outside. `make e2e-install_crashes` takes 1,200 states, else a sample.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path

import crashrun
import crashstates
import crashtable
import diskmachine
import diskplans
import mediums
import pytest
import stickcrashes
from crashoracle import COMPLETE, NOTHING, RESUMABLE, STARTS

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=mediums.unavailable() or "a lab is here"),
]

DISK = diskplans.target("/dev/vdc", "DISK-1", 2 * diskplans.GIB)
ESP = 128 * diskplans.MIB
PLAN = diskplans.startable(DISK, esp=ESP)
RESUMED = 6 if crashtable.FULL else 2
# To read a whole system takes some ten seconds a state.
_READ_ONE_IN = 25
SAMPLE, OF_A_CONTROL = 150, 150
NUMBER, LEAST = (1200, 1000) if crashtable.FULL else (SAMPLE, SAMPLE)


class Recorder:
    """Installs in a machine that records what is written to the disk."""

    def __init__(self, media, folder):
        self.media, self.folder = media, folder
        self.machine = diskmachine.ensure(media.lab, media.apt)
        self.image = diskmachine.system_image(self.machine, folder / "image")

    def install(self, name, sabotage=""):
        """The log of an install, and the disk as it ended."""
        disk, log = self.folder / f"{name}.disk", self.folder / f"{name}.log"
        self.apply(disk, log, sabotage=sabotage)
        return log, disk

    def apply(self, disk, log=None, plan=PLAN, size=DISK["size"], **how):
        """What an install of this disk tells: from nothing, or from where another was cut."""
        disks = [
            diskmachine.Disk(disk, DISK["serial"], size, log),
            diskmachine.Disk(self.image, "image"),
        ]
        asked = diskplans.asked(plan, **how)
        with diskmachine.booted(self.media.lab, self.media.apt, disks) as machine:
            machine.run("mkdir -p /usr/lib/kos/installed; cp -L /initrd.img /usr/lib/kos/installed/initrd")
            events, said, code = machine.apply(asked)
            assert code == 0, said[-3000:]
            # Else the machine is off before what it still had to write.
            machine.run("sync; sleep 1")
        return events

    def crashes(self, title, number, sabotage="", **how):
        """Record an install, and judge what power cuts leave of it."""
        log, disk = self.install(title.replace(" ", "-"), sabotage)
        install = crashrun.Install(title, log, disk, json.dumps({"actions": PLAN}), diskplans.PASSPHRASE)
        expect = functools.partial(crashrun.small_system, folder=self.machine, image=self.image)
        table = crashrun.run(install, self.machine, number, crashtable.SEED, expect, **how)
        return crashtable.noted(table)


@pytest.fixture(scope="module")
def recorder(tmp_path_factory):
    return Recorder(mediums.Media(f"crashes{os.getpid()}"), tmp_path_factory.mktemp("crashes"))


@pytest.fixture(scope="module")
def table(recorder):
    """The crashes of one install."""
    return recorder.crashes("an install", NUMBER)


def test_no_power_cut_leaves_anything_in_between(table):
    assert not table.faults, table.faults
    # Of each kind there are some, or it was no install that was recorded.
    assert all(table.rows[what] for what in (COMPLETE, RESUMABLE, NOTHING))
    assert table.states >= LEAST and table.torn > LEAST / 2


def test_what_a_power_cut_leaves_is_really_gone_on_with(recorder, table, tmp_path):
    """States spread over the install, each put into a machine that starts anew and ends it."""
    left = [one.state for one in table.judged if one.verdict != COMPLETE and one.state.kept]
    for number in range(RESUMED):
        state = left[(2 * number + 1) * len(left) // (2 * RESUMED)]
        with crashtable.row("an install", f"epoch {state.epoch} of {len(table.recording.epochs)}, {state.how}") as line:
            disk = crashrun.leave(table.recording, state, DISK["size"], tmp_path / "disk")
            events = recorder.apply(disk, resume=True)
            assert events[-1] == ["done"], events[-3:]
            assert not [event for event in events if event[0] == "log" and event[1].startswith("WRONG")]
            skipped = [event[1] for event in events if event[0] == "action" and event[2] == "skipped"]
            line["by"] = f"resumed after {skipped[-1]}" if skipped else "begun anew"


@pytest.mark.parametrize(
    ("sabotage", "fault", "of"),
    [("no sync", STARTS, [names.ESP, names.ROOT]), ("in place", "the journal has lost", [names.JOURNAL])],
)
def test_the_harness_sees_what_it_is_there_to_see(recorder, sabotage, fault, of):
    """Without the sync of the root before it may start; with a journal that is written over in place."""
    table = recorder.crashes(f"control, {sabotage}", OF_A_CONTROL, sabotage, of=of)
    assert any(fault in found for found in table.faults), table.faults


def test_partitions_that_stay_are_found_whenever_the_power_goes(recorder, tmp_path):
    """While others are put beside them: one of GPT's two tables is whole, and has them, in every state."""
    shared, log, size = tmp_path / "shared", tmp_path / "log", 4 * diskplans.GIB
    with crashrun.workplace(recorder.machine) as (work, tool):
        _blank(work / "disk", size)
        tool("sfdisk", "-q", work / "disk", stdin=diskplans.others().encode())
        subprocess.run(["cp", "--sparse=always", work / "disk", shared], check=True)
        before = tmp_path / "before"
        subprocess.run(["cp", "--sparse=always", shared, before], check=True)
        disk = diskplans.target("/dev/vdc", "DISK-1", size)
        table = diskplans.beside(disk, diskplans.kept())[:1]
        recorder.apply(shared, log, plan=table, size=size)
        recording = crashstates.read(log)
        replayed = crashstates.Disk(recording, work / "disk", size, base=before)
        wanted = {(one["start"], one["size"], one["uuid"]) for one in diskplans.kept()}
        seen = set()
        for state in crashstates.states(recording, SAMPLE, crashtable.SEED):
            undo = replayed.apply(state)
            rows = json.loads(tool("sfdisk", "--json", work / "disk").stdout)["partitiontable"]["partitions"]
            found = {(row["start"] * 512, row["size"] * 512, row["uuid"].lower()) for row in rows}
            assert wanted <= found, state
            seen.add(len(rows))
            replayed.undo(undo)
        assert seen == {3, 6}


def _blank(file, size):
    with file.open("wb") as stream:
        stream.truncate(size)


@pytest.fixture(scope="module")
def recorded(recorder, tmp_path_factory):
    """An install by the medium's own installer: profile, playbook and all, on a machine without a network.

    KOS_TEST_RECORDING: a folder that keeps it, or has it from the last time.
    """
    folder = Path(os.environ.get("KOS_TEST_RECORDING") or tmp_path_factory.mktemp("stick"))
    return stickcrashes.record(recorder.media, folder)


@pytest.fixture(scope="module")
def whole(recorder, recorded):
    """The crashes of that one."""
    return crashtable.noted(recorded.judged(recorder.machine, NUMBER, crashtable.SEED, _READ_ONE_IN))


def test_nor_does_one_when_a_stick_installs_the_whole_system(whole):
    assert not whole.faults, whole.faults
    assert whole.states >= LEAST and whole.torn > LEAST / 2
    # Of so long an install few are: a sample may have none.
    assert whole.rows[COMPLETE] or not crashtable.FULL


def test_the_stick_goes_on_with_what_a_power_cut_left_of_each_phase(recorded, whole):
    """Nobody is asked: the same answers are given again. What is proved to be done is not done again."""
    for phase, state in stickcrashes.spread(whole):
        where = f"epoch {state.epoch} of {len(whole.recording.epochs)}, {state.how}, in {phase}"
        with crashtable.row(whole.title, where) as line:
            done, skipped = recorded.resumed(state)
            assert skipped == recorded.proved_before(phase), (done, skipped)
            line["by"] = f"resumed: {len(skipped)} steps proved, {len(done)} done"
