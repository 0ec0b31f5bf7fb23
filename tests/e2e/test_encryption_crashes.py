# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whenever the power goes while data move into the encrypted volume, what is in force is complete, and one run ends it.

A move by the node's own code (dm-crypt, ext4, rsync) is recorded write by write, a second one of data that
came later, and the removal of the plain copies. What a power cut could leave is read from outside, then gone on with.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import crashtable
import diskmachine
import mediums
import movecrashes
import pytest
from crashtools import Broken

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=mediums.unavailable() or "a lab is here"),
]

STATES, OF_A_CONTROL = (330, 120) if crashtable.FULL else (120, 120)
# Of so many one is gone on with: that takes an emulated machine some ten seconds.
EACH = 1 if crashtable.FULL else 15


@pytest.fixture(scope="module")
def media():
    return mediums.Media(f"moves{os.getpid()}")


@pytest.fixture(scope="module")
def tree(media):
    return diskmachine.ensure(media.lab, media.apt) / "tree"


@pytest.fixture
def work(tree):
    """Where Debian's tools see it."""
    with tempfile.TemporaryDirectory(prefix="moves-", dir=tree / "tmp") as name:
        yield Path(name)


def ended(machine, reader, table, state, found, file, disk):
    """One more run on what a crash left: nothing of it is lost, and all of it is in the volume."""
    discarding = table.phases.of(state) == movecrashes.DISCARDING
    try:
        before, after = machine.again(file, discarding)
        if before["in_use"] and before["runs"]:
            raise Broken("a service ran although its data were locked")
        if not after["runs"] or after["in_clear"] or after["stopped"] or (discarding and after["plain"]):
            raise Broken(f"one more run left {after}")
        seen = reader.at_the_end(disk, discarding)
        if seen.notes < found.notes:
            raise Broken(f"of {found.notes} notes {seen.notes} are left")
    except Broken as error:
        table.fault(state, f"gone on with: {error}")
    else:
        table.went_on(state, found.what)


def test_what_is_in_force_is_complete_and_one_more_run_ends_the_move(media, tree, work, tmp_path):
    moved, disk = movecrashes.record(media, tmp_path), tmp_path / "again"
    with movecrashes.Machine(media, disk) as machine, tempfile.TemporaryDirectory(dir=tree / "tmp") as name:
        reader = movecrashes.Reader(tree, Path(name))
        crashes = movecrashes.judged("a move", moved, tree, work, STATES, crashtable.SEED)
        for number, (table, state, found, file) in enumerate(crashes):
            if not found.fault and number % EACH == 0:
                ended(machine, reader, table, state, found, file, disk)
    crashtable.noted(table)
    assert not table.faults, table.faults
    assert len(table.judged) >= STATES and table.torn > STATES / 3 and table.again.total() >= STATES // EACH
    assert {what for _state, what in table.judged} == {movecrashes.PLAIN, movecrashes.ENCRYPTED}


@pytest.mark.parametrize("mark", movecrashes.CUTS)
def test_one_more_run_ends_what_a_real_power_cut_has_left(media, tree, tmp_path, mark):
    """The machine is killed, not replayed: what its kernel had not written is lost. Then it is switched on again."""
    disk, after = tmp_path / "disk", crashtable.moments(1, f"cut at {mark}")[0]
    began = movecrashes.cut(media, disk, mark, after)
    discarding = mark == movecrashes.CUTS[-1]
    with (
        crashtable.row("real power cut", f"{movecrashes.PHASES[mark]}, {after:.1f} s on: {began[-1]}") as line,
        tempfile.TemporaryDirectory(dir=tree / "tmp") as name,
        movecrashes.Machine(media, tmp_path / "again") as machine,
    ):
        reader = movecrashes.Reader(tree, Path(name))
        found = reader.at_rest(disk, late=discarding)
        assert not found.fault, found.fault
        before, ended = machine.again(disk, discarding)
        assert not (before["in_use"] and before["runs"]) and ended["runs"] and not ended["in_clear"]
        notes = reader.at_the_end(tmp_path / "again", discarding).notes
        assert notes >= found.notes > 0
        line["by"] = f"one more run: {found.what}, {found.notes} notes, then {notes}"


@pytest.mark.parametrize(
    ("sabotage", "fault"), [("no sync", movecrashes.ENCRYPTED), ("in place", "notes were there")]
)  # fmt: skip
def test_the_harness_sees_what_it_is_there_to_see(media, tree, work, tmp_path, sabotage, fault):
    """Without the sync of the copies before they are used; with a link that is taken away before it is exchanged."""
    moved = movecrashes.record(media, tmp_path, sabotage)
    crashes = movecrashes.judged(f"control, {sabotage}", moved, tree, work, OF_A_CONTROL, crashtable.SEED)
    [*_others, (table, *_last)] = crashes
    crashtable.noted(table)
    assert any(fault in found for found in table.faults), table.faults
