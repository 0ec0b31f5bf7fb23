# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of an install: whatever a power cut leaves of its last write, what was written before is read."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from installs import KEY

from kos_install.answers import FORGOTTEN, Answers
from kos_install.engine import journal
from kos_install.errors import ApplyFailed
from kos_install.storage.actions import Plan

SECTOR, SIZE, FEW = 512, 1 << 20, 1 << 16
DISK = {"path": "/dev/sda", "serial": "S1", "size": 1 << 34}
PLAN = Plan.model_validate_json(
    '{"actions": [{"kind": "journal", "id": "journal", "device": "/dev/sda2"},'
    ' {"kind": "mount", "id": "mount", "mounts": [["a", "/", "b"]]}, {"kind": "unpack", "id": "unpack"},'
    ' {"kind": "finish", "id": "finish"}], "warnings": ["' + "w" * 9000 + '"]}'
)
ANSWERS = Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}})
JOURNAL, MOUNT, UNPACK, FINISH = PLAN.actions


@pytest.fixture
def device(tmp_path):
    path = tmp_path / "partition"
    # What an older install left there: records of its own.
    path.write_bytes(bytes(SIZE))
    old = journal.begin(path, PLAN, ANSWERS, [JOURNAL])
    for _ in range(20):
        old.append(UNPACK, "done")
    return path


@pytest.fixture
def begun(device):
    return journal.begin(device, PLAN, ANSWERS, [JOURNAL])


def test_a_journal_is_read_as_it_was_written(device, begun):
    begun.append(MOUNT, "started")
    begun.append(MOUNT, "done", {"places": 8})
    found = journal.read(device)
    assert (found.plan, found.answers) == (PLAN, ANSWERS)
    assert [(one.action, one.state) for one in found.records] == [
        ("journal", "done"), ("mount", "started"), ("mount", "done"),
    ]  # fmt: skip
    assert found.records == begun.records
    assert (found.done(JOURNAL), found.done(MOUNT), found.done(UNPACK)) == (True, True, False)


def test_the_hash_of_a_password_is_not_on_the_disk(device):
    """The partition is not encrypted, and a machine that is switched off after a failure keeps it."""
    hashed = "$y$j9T$salt$" + "x" * 43
    asked = Answers.model_validate({"version": 1, "user": {"password_hash": hashed}})
    found = journal.begin(device, PLAN, asked, [JOURNAL])
    assert hashed.encode() not in device.read_bytes()
    assert found.answers.user.password_hash == FORGOTTEN and found.answers.reminded(hashed) == asked
    with pytest.raises(ValueError, match="not given again"):
        found.answers.reminded(None)
    # Whether these answers were installed already is known without it.
    assert found.answers.digest() == asked.digest() != ANSWERS.digest()


def test_an_action_that_is_done_again_is_not_done_until_it_is(begun):
    begun.append(UNPACK, "started")
    begun.append(UNPACK, "done")
    begun.append(UNPACK, "started")
    assert not begun.done(UNPACK)


def test_an_action_that_was_asked_for_otherwise_is_not_done(begun):
    begun.append(MOUNT, "done")
    assert not begun.done(MOUNT.model_copy(update={"mounts": []}))


def test_it_is_finished_when_all_of_the_plan_is_done(begun):
    for action in (MOUNT, UNPACK, FINISH):
        assert not begun.finished
        begun.append(action, "done")
    assert begun.finished


def test_where_none_was_begun_there_is_none(tmp_path):
    for content in (b"", bytes(SIZE), os.urandom(SIZE)):
        path = tmp_path / "empty"
        path.write_bytes(content)
        with pytest.raises(journal.NoJournal):
            journal.read(path)


def test_an_erased_one_is_gone(device, begun):
    journal.erase(device)
    with pytest.raises(journal.NoJournal):
        journal.read(device)


def test_one_that_is_full_says_so_and_stays_readable(device, begun):
    with pytest.raises(journal.JournalFull, match="full"):
        while True:
            begun.append(UNPACK, "started")
    assert journal.read(device).records == begun.records
    assert len(begun.records) > 100


def test_answers_that_do_not_fit_are_refused_before_anything_is_written(device):
    huge = ANSWERS.model_copy(update={"settings": {"x": "y" * (journal.BLOCK * 130)}})
    before = device.read_bytes()
    with pytest.raises(ApplyFailed, match="too long"):
        journal.begin(device, PLAN, huge)
    assert device.read_bytes() == before


def test_nothing_is_ever_written_over(device, begun):
    """Each record goes where only zeros were."""
    for action in (MOUNT, UNPACK, MOUNT):
        before = device.read_bytes()
        begun.append(action, "started")
        after = device.read_bytes()
        changed = [at for at in range(SIZE) if before[at] != after[at]]
        assert changed
        assert not any(before[at] for at in changed)


def torn(before, after, kept):
    """The disk if of the sectors of a write only some arrived, whichever."""
    sectors = [at for at in range(0, len(before), SECTOR) if before[at : at + SECTOR] != after[at : at + SECTOR]]
    content = bytearray(before)
    for index, at in enumerate(sectors):
        if kept[index % len(kept)]:
            content[at : at + SECTOR] = after[at : at + SECTOR]
    return bytes(content)


@given(kept=st.lists(st.booleans(), min_size=8, max_size=16), many=st.integers(0, 4), noise=st.booleans())
def test_a_torn_record_costs_no_other_and_the_next_one_is_read(tmp_path_factory, kept, many, noise):
    device = tmp_path_factory.mktemp("torn") / "partition"
    device.write_bytes(bytes(FEW))
    begun = journal.begin(device, PLAN, ANSWERS, [JOURNAL])
    for _ in range(many):
        begun.append(UNPACK, "started")
    whole, before = journal.read(device), device.read_bytes()
    begun.append(MOUNT, "done", {"what": "x" * 3000})
    after = device.read_bytes()
    if noise:  # a sector that was being written holds anything
        at = next(at for at in range(0, FEW, SECTOR) if before[at : at + SECTOR] != after[at : at + SECTOR])
        before = before[:at] + os.urandom(SECTOR) + before[at + SECTOR :]
    device.write_bytes(torn(before, after, kept))
    found = journal.read(device)
    assert found.records in (whole.records, begun.records)
    found.append(UNPACK, "done")
    again = journal.read(device)
    assert again.records == found.records
    assert again.done(UNPACK)


@given(kept=st.lists(st.booleans(), min_size=16, max_size=48), order=st.booleans())
def test_a_torn_beginning_is_none_or_the_whole(tmp_path_factory, kept, order):
    device = tmp_path_factory.mktemp("torn") / "partition"
    device.write_bytes(bytes(FEW))
    before = device.read_bytes()
    journal.begin(device, PLAN, ANSWERS, [JOURNAL])
    device.write_bytes(torn(before, device.read_bytes(), kept if order else kept[::-1]))
    try:
        found = journal.read(device)
    except journal.NoJournal:
        return
    assert (found.plan, found.answers) == (PLAN, ANSWERS)


@given(at=st.integers(0, FEW - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_believed(tmp_path_factory, at, bit):
    device = tmp_path_factory.mktemp("flipped") / "partition"
    device.write_bytes(bytes(FEW))
    begun = journal.begin(device, PLAN, ANSWERS, [JOURNAL])
    for state in ("started", "done"):
        begun.append(UNPACK, state)
    content = bytearray(device.read_bytes())
    content[at] ^= 1 << bit
    device.write_bytes(content)
    try:
        found = journal.read(device)
    except journal.NoJournal:
        return
    assert found.plan == PLAN
    assert found.records == begun.records[: len(found.records)]


def test_of_a_finished_install_only_remains_which_answers_it_was(device, begun):
    assert journal.finished_by(device) == ""
    begun.append(MOUNT, "done", {"where": "secret-canary"})
    journal.finish(begun)
    assert journal.finished_by(device) == ANSWERS.digest()
    with pytest.raises(journal.NoJournal):
        journal.read(device)
    raw = device.read_bytes()
    assert b"AAAA test" not in raw and b"secret-canary" not in raw and not any(raw[journal.BLOCK :])


def test_an_install_whose_power_went_before_its_mark_is_finished_all_the_same(device, begun):
    for action in (MOUNT, UNPACK):
        begun.append(action, "done")
    begun.append(FINISH, "started")
    assert journal.finished_by(device) == ""
    begun.append(FINISH, "done")
    assert journal.finished_by(device) == ANSWERS.digest()


@given(cut=st.integers(0, journal.BLOCK // SECTOR - 1))
def test_a_torn_mark_is_none(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "partition"
    path.write_bytes(bytes(FEW * 4))
    begun = journal.begin(path, PLAN, ANSWERS, [JOURNAL])
    header = path.read_bytes()[: journal.BLOCK]
    journal.finish(begun)
    mark = path.read_bytes()[: journal.BLOCK]
    with path.open("r+b") as stream:
        stream.write(mark[: cut * SECTOR] + header[cut * SECTOR :])
    # A sector holds all of the mark: there is the journal, or the mark, or what is neither.
    assert journal.finished_by(path) in ("", ANSWERS.digest())


def test_a_journal_knows_the_image_that_it_was_begun_from(device):
    assert journal.begin(device, PLAN, ANSWERS, [JOURNAL], "ab" * 32).image == "ab" * 32
