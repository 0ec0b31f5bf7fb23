# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order a plan is carried out, what a journal spares it, and what it never spares. No disk is touched here."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from installs import KEY

from kos_install.actions import unpack
from kos_install.actions.context import Context
from kos_install.answers import Answers
from kos_install.engine import apply, journal, this_machine
from kos_install.errors import ApplyFailed
from kos_install.hardware.model import Machine
from kos_install.storage.actions import Plan

DISK = {"path": "/dev/sda", "serial": "S1", "size": 1 << 34}
PLAN = Plan.model_validate_json(
    json.dumps({"actions": [
        {"kind": "release", "id": "release", "disk": DISK},
        {"kind": "wipe", "id": "wipe", "disk": DISK},
        {"kind": "table", "id": "table", "disk": DISK, "wipe": True, "make": []},
        {"kind": "journal", "id": "journal", "device": "/dev/sda2"},
        {"kind": "mount", "id": "mount", "mounts": []},
        {"kind": "unpack", "id": "unpack"},
        {"kind": "configure", "id": "configure"},
        {"kind": "verify", "id": "verify"},
        {"kind": "finish", "id": "finish"},
    ]})
)  # fmt: skip
ANSWERS = Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}})
NAMES = [action.id for action in PLAN.actions]


class Died(BaseException):
    """The power went."""


class World:
    """A machine whose disk is a set of words; `dies` after that many steps."""

    def __init__(self, device):
        self.device, self.did, self.stood, self.dies = device, [], set(), None

    def module(self, kind):
        def perform(context, action):
            self.step()
            self.did.append(action.id)
            if kind == "journal":
                journal.begin(self.device, PLAN, ANSWERS, PLAN.actions[:4])
            self.stood.add(action.id)
            self.step()

        made = types.SimpleNamespace(perform=perform, stands=lambda _context, action: action.id in self.stood)
        if kind == "mount":
            made.VOLATILE = True
        if kind == "unpack":
            made.again = lambda _context, action: self.did.append(f"{action.id} again")
        return made

    def step(self):
        if self.dies is not None:
            self.dies -= 1
            if self.dies < 0:
                raise Died

    def run(self, monkeypatch=None):
        """What a start of the machine does."""
        self.did, told = [], []
        self.stood.discard("mount")
        context = Context(ANSWERS, Machine(), PLAN, action=lambda name, state: told.append((name, state)))
        try:
            found = journal.read(self.device)
        except journal.NoJournal:
            found = None
        apply.apply(context, PLAN.actions, found, self.module)
        return told


@pytest.fixture
def world(tmp_path, monkeypatch):
    device = tmp_path / "partition"
    device.write_bytes(bytes(1 << 19))
    monkeypatch.setattr(apply.journal_action, "device", lambda _context, _action: device)
    return World(device)


def test_all_is_done_in_order_and_told(world):
    told = world.run()
    assert world.did == NAMES
    assert told == [(name, state) for name in NAMES for state in ("started", "done")]
    assert journal.read(world.device).finished


def test_what_is_done_and_stands_is_skipped_and_what_does_not_outlive_a_start_is_done_again(world):
    world.run()
    told = world.run()
    assert world.did == ["mount", "unpack again"]
    assert ("unpack", "skipped") in told
    assert ("mount", "done") in told


def test_what_does_not_stand_is_done_again_with_all_that_came_after(world):
    world.run()
    world.stood.discard("unpack")
    world.run()
    assert world.did == ["mount", "unpack", "configure", "verify", "finish"]


@pytest.mark.parametrize("name", ["release", "wipe", "table", "journal"])
def test_a_disk_that_is_not_as_it_was_made_is_not_made_anew(world, name):
    world.run()
    world.stood.discard(name)
    with pytest.raises(ApplyFailed, match="somebody changed it since"):
        world.run()
    assert world.did == []


@given(deaths=st.lists(st.integers(0, 2 * len(NAMES) - 1), max_size=6))
def test_however_often_it_dies_each_step_is_whole_in_the_end(tmp_path_factory, deaths):
    device = tmp_path_factory.mktemp("world") / "partition"
    device.write_bytes(bytes(1 << 19))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply.journal_action, "device", lambda _context, _action: device)
        world = World(device)
        for dies in deaths:
            world.dies = dies
            try:
                world.run()
            except Died:
                # What was being done is half done: nobody may rely on it.
                if world.did and world.did[-1] not in ("release", "wipe", "table", "journal"):
                    world.stood.discard(world.did[-1])
        world.dies = None
        world.run()
        assert world.stood == set(NAMES)
        assert journal.read(device).finished


def test_two_installs_at_once_are_one_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(apply, "LOCK", tmp_path / "lock")
    with apply.exclusively(), pytest.raises(ApplyFailed, match="another install is at work"), apply.exclusively():
        pass
    with apply.exclusively():
        pass


def begun_from(monkeypatch, world, tmp_path, confirmed, wipes=True):
    """What is gone on with of an install that was begun from another medium."""
    actions = [
        one.model_copy(update={"wipe": wipes}) if one.kind == "table" else
        one.model_copy(update={"device": str(world.device)}) if one.kind == "journal" else one
        for one in PLAN.actions
    ]  # fmt: skip
    plan = Plan(actions=actions)
    journal.begin(world.device, plan, ANSWERS, plan.actions[:4], "aa")
    monkeypatch.setattr(apply.ready, "image", lambda: "bb")
    return apply._begun(Context(ANSWERS, Machine(), plan, confirmed=confirmed))


def test_an_install_from_another_medium_is_not_gone_on_with(world, monkeypatch, tmp_path):
    with pytest.raises(ApplyFailed, match="begun from another medium"):
        begun_from(monkeypatch, world, tmp_path, confirmed=False)


def test_it_is_made_anew_where_the_wipe_was_confirmed_just_now(world, monkeypatch, tmp_path):
    assert begun_from(monkeypatch, world, tmp_path, confirmed=True) is None
    with pytest.raises(ApplyFailed, match="begun from another medium"):
        begun_from(monkeypatch, world, tmp_path, confirmed=True, wipes=False)
    monkeypatch.setattr(apply.ready, "image", lambda: "aa")


def test_from_the_same_medium_it_goes_on(world, monkeypatch):
    plan = Plan(actions=[PLAN.actions[3].model_copy(update={"device": str(world.device)}), *PLAN.actions[4:]])
    journal.begin(world.device, plan, ANSWERS, plan.actions[:1], "aa")
    monkeypatch.setattr(apply.ready, "image", lambda: "aa")
    assert apply._begun(Context(ANSWERS, Machine(), plan)).plan == plan


def test_what_is_unpacked_over_is_cleared_but_for_what_is_not_ours(tmp_path, monkeypatch):
    target = tmp_path / "target"
    for name in ("boot/vmlinuz-6.1", "usr/lib/old", "var/lib/x", "efi/EFI/Microsoft/boot.efi", "proc/1/environ"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("old")
    (target / "var/link").symlink_to(tmp_path)
    mounted = {target / "efi", target / "proc", target / "var"}
    monkeypatch.setattr(Path, "is_mount", lambda path: path in mounted)
    unpack.clear(target, {target, target / "var"})
    left = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert left == ["efi/EFI/Microsoft/boot.efi", "proc/1/environ"] and tmp_path.is_dir()


def test_a_disk_that_cannot_be_read_does_not_hide_the_others(tmp_path, monkeypatch):
    """Of one bad sector on any journal partition the engine died, started again, and died."""
    good, bad, odd, empty = (tmp_path / name for name in ("good", "bad", "odd", "empty"))
    for path in (good, odd, empty):
        path.write_bytes(bytes(1 << 19))
    journal.begin(good, PLAN, ANSWERS)
    monkeypatch.setattr(journal, "VERSION", [])
    journal.begin(odd, PLAN, ANSWERS)
    monkeypatch.undo()
    bad.mkdir()  # reading it ends with an error, as a sector does that is gone
    monkeypatch.setattr(apply.disks, "journals", lambda: [bad, odd, empty, good])
    found, faults = apply.begun()
    assert [one.device for one in found] == [good] and len(faults) == 1 and str(bad) in faults[0]
    offered = this_machine._found(Machine())
    assert offered.plan == PLAN and offered.notes == tuple(faults)
    monkeypatch.setattr(apply.disks, "journals", lambda: [bad])
    with pytest.raises(ApplyFailed, match="cannot be read"):
        this_machine._found(Machine())


def test_what_is_bound_is_emptied_and_never_removed(tmp_path):
    mounts = [["/dev/mapper/kos-root", "/", ""], ["/usr/lib/sysimage/dpkg", "/var/lib/dpkg", "bind"],
              ["/dev/esp", "/efi", ""]]  # fmt: skip
    plan = Plan.model_validate_json(
        json.dumps(
            {"actions": [{"kind": "mount", "id": "mount", "mounts": mounts}, {"kind": "unpack", "id": "unpack"}]}
        )
    )
    context = Context(ANSWERS, Machine(), plan, target=tmp_path)
    for name in ("usr/lib/sysimage/dpkg/info", "var/lib/dpkg", "usr/bin"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "old").touch()
    before = (tmp_path / "usr/lib/sysimage/dpkg").stat().st_ino
    unpack.clear(tmp_path, unpack._ours(context))
    assert (tmp_path / "usr/lib/sysimage/dpkg").stat().st_ino == before
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not any(path.iterdir()))
    assert left == ["usr/lib/sysimage/dpkg", "var/lib/dpkg"]
