# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back to what the installer left: only on a person's word, and in an order that a power cut cannot make worse."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from bootloaders import PowerCuts
from livingnode import Node

from ansible_collections.kind.kos.plugins.module_utils.node import files, system
from ansible_collections.kind.kos.plugins.module_utils.node.machine import reset, slots, system_update, systems
from ansible_collections.kind.kos.plugins.module_utils.node.machine.systems import Known, Record
from kos_install.actions import filesystems, pristine
from kos_install.storage.actions import Btrfs

NAME = os.uname().nodename


@pytest.fixture(params=slots.KINDS)
def node(request, tmp_path, monkeypatch):
    """A machine that runs system 1, with data."""
    return Node(tmp_path / "machine", monkeypatch, kind=request.param).install()


def reset_of(node, data=True):
    assert reset.reset(node.root, NAME, data) == {"slot": 5, "data": data}
    return node


def test_it_wants_the_name_of_the_machine_and_says_what_would_go(node):
    before = node.subvolumes()
    for data, what in ((False, "keeps /var and /home"), (True, "empties /var and /home")):
        with pytest.raises(reset.NotConfirmed, match=f"{what}; to confirm, add: --confirm {NAME}"):
            reset.reset(node.root, "another", data)
    assert node.subvolumes() == before and node.starts() == 1


def test_without_the_installers_snapshot_it_says_what_to_do(node):
    shutil.rmtree(node.top / "@root.0")
    with pytest.raises(reset.NotConfirmed, match="install anew from the medium"):
        reset.reset(node.root, NAME, data=False)


def test_a_fresh_root_is_tried_like_an_update_and_mounts_the_same_data(node):
    reset_of(node, data=False)
    assert node.starts() == 5 and node.record().known[5].why == "reset"
    assert node.mounts(5) == node.mounts(1) == {"/var": "@var", "/home": "@home"}
    system_update.bless(node.run(5).root)
    assert (node.top / "@var/lib/mine").exists() and (node.top / "@home/mine").exists()
    assert node.numbers() == [1, 5]


def test_what_is_kept_is_what_runs_also_after_data_were_emptied_once(node):
    system_update.bless(reset_of(node).run(5).root)
    files.write(str(node.top / "@var.5/lib/newer"), b"")
    assert reset.reset(node.root, NAME, data=False)["slot"] == 6
    assert node.mounts(6) == {"/var": "@var.5", "/home": "@home.5"}
    system_update.bless(node.run(6).root)
    assert (node.top / "@var.5/lib/newer").exists() and node.numbers() == [5, 6]


def test_with_data_the_fresh_system_has_its_own_and_what_runs_keeps_its_own(node):
    reset_of(node)
    assert node.mounts(1) == {"/var": "@var", "/home": "@home"}
    assert (node.top / "@var/lib/mine").exists() and (node.top / "@home/mine").exists()
    assert node.starts() == 5 and node.mounts(5) == {"/var": "@var.5", "/home": "@home.5"}
    assert (node.top / "@var.5/lib/fresh").exists() and not (node.top / "@var.5/lib/mine").exists()
    # It knows which systems there are.
    assert systems.load(node.run(5).root).known[1].state == "good"
    assert "subvol=@log," in (node.top / "@root.5/etc/fstab").read_text()


def test_old_data_go_once_the_fresh_system_came_up_well_and_with_them_what_mounts_them(node):
    system_update.bless(reset_of(node).run(5).root)
    assert node.subvolumes() == ["@home.0", "@home.5", "@root.0", "@root.5", "@var.0", "@var.5"]
    assert node.numbers() == [5] and node.starts() == 5
    # And another time, the installer's snapshots being there still.
    assert reset.reset(node.root, NAME, data=True)["slot"] == 6
    system_update.bless(node.run(6).root)
    assert node.subvolumes() == ["@home.0", "@home.6", "@root.0", "@root.6", "@var.0", "@var.6"]


def test_an_update_before_it_is_known_to_be_well_takes_no_data(node):
    reset_of(node).run(5)
    system_update.stage(node.root)
    assert (node.top / "@var/lib/mine").exists() and node.numbers()[:2] == [1, 5]


def test_a_pinned_system_keeps_its_data(node):
    node.remember(Record({1: Known(1, state="good")}, last=4, pinned=(1,)))
    system_update.bless(reset_of(node).run(5).root)
    assert (node.top / "@var/lib/mine").exists() and "@root.1" in node.subvolumes()


def test_a_fresh_system_that_fails_its_tries_leaves_the_old_one_all_its_data(node):
    """The two had exchanged their data: the old system came back on an empty /var, and then the old data were swept."""
    reset_of(node).run(5)
    systems.note_trial(node.root, 5, "the network is gone")
    node.fail(5)
    assert node.starts() == 1
    answer = system_update.bless(node.run(1).root)
    assert Path(node.root.join("/var/lib/mine")).exists()
    assert node.subvolumes() == ["@home", "@home.0", "@root.0", "@root.1", "@var", "@var.0"]
    assert (node.top / "@home/mine").exists()
    assert answer["failed"] == {"slot": 5, "reason": "the network is gone"}


def states_of(node, tmp_path, act):
    with PowerCuts(node.folder, tmp_path / "states") as cuts:
        act()
    return [node.at(state) for state in cuts.all()]


def test_power_cut_at_any_moment_of_a_reset_leaves_the_old_system_its_data(node, tmp_path):
    states = states_of(node, tmp_path, lambda: reset_of(node))
    assert len(states) > 20 and (states[0].starts(), states[-1].starts()) == (1, 5)
    for state in states:
        state._own()
        assert state.mounts(1) == {"/var": "@var", "/home": "@home"}
        assert (state.top / "@var/lib/mine").exists() and (state.top / "@home/mine").exists()
        if state.whole() == 5:
            fresh = state.top / state.mounts(5)["/var"]
            assert (fresh / "lib/fresh").exists() and (fresh / "lib/kos-system/record.json").exists()
            state.fail(5)
            assert state.starts() == 1
        system_update.bless(state.run(1).root)
        # Nothing is left over, and another one has another number.
        assert state.subvolumes() == ["@home", "@home.0", "@root.0", "@root.1", "@var", "@var.0"]
        again = reset.reset(state.root, NAME, data=True)["slot"]
        assert again in (5, 6) and state.starts() == again


def test_power_cut_at_any_moment_while_old_data_go_leaves_a_system_with_its_data(node, tmp_path):
    reset_of(node).run(5)
    states = states_of(node, tmp_path, lambda: system_update.bless(node.root))
    assert len(states) > 5
    for state in states:
        state._own()
        assert state.whole() == 5
        # Each entry that is left has its root and its data: a person may choose it.
        for number in state.numbers():
            assert {f"@root.{number}", *state.mounts(number).values()} <= {*state.subvolumes()}
            assert number != 1 or (state.top / "@var/lib/mine").exists()
        system_update.bless(state.run(5).root)
        assert state.subvolumes() == ["@home.0", "@home.5", "@root.0", "@root.5", "@var.0", "@var.5"]


def test_where_it_cannot_be_told_what_a_root_mounts_all_data_stay(node):
    files.write(str(node.top / "@var.7/lib/x"), b"")
    files.write(str(node.top / "@root.1/etc/fstab"), b"UUID=x / btrfs noatime 0 0\n")
    system_update.bless(node.root)
    assert "@var.7" in node.subvolumes() and "@var" in node.subvolumes()


def test_the_installer_keeps_each_of_them_once(tmp_path, monkeypatch):
    node, done = Node(tmp_path / "machine", monkeypatch).install(), []
    for kept in node.top.glob("*.0"):
        shutil.rmtree(kept)
    one = Btrfs(
        id="btrfs", devices=["/dev/mapper/kos-root"], label="kos-root", uuid="u",
        subvolumes=["@root.1", "@var", "@log", "@home"],
    )  # fmt: skip
    context = SimpleNamespace(plan=SimpleNamespace(actions=[one]), log=lambda _text: None)
    monkeypatch.setattr(filesystems, "mounted", lambda *_arguments: contextlib.nullcontext(node.top))
    monkeypatch.setattr(pristine, "run", lambda argv, log: (done.append(argv), system.run(argv)))
    assert not pristine.are_kept(context)
    for _time in range(2):
        pristine.keep(context)
        assert pristine.are_kept(context)
    kept = [argv[-1] for argv in done if argv[2:4] == ["snapshot", "-r"]]
    assert [os.path.basename(path) for path in kept] == ["@root.0", "@var.0", "@home.0"]
