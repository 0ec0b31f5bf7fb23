# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two EFI partitions of a mirror, one away while the other went on: what firmware starts from either is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bootloaders import PowerCuts
from livingnode import Node

from ansible_collections.kind.kos.plugins.module_utils.node import files, main
from ansible_collections.kind.kos.plugins.module_utils.node.machine import (
    fatfiles,
    kernels,
    mirror,
    reset,
    slots,
    system_update,
    systems,
)

FIRST, SECOND = "/efi", "/efi-2"


@pytest.fixture(params=slots.KINDS)
def node(request, tmp_path, monkeypatch):
    """A machine with two disks, both in, that runs system 5; 1 is the one before."""
    made = Node(tmp_path / "machine", monkeypatch, partitions=2, kind=request.param).install()
    assert update(made) == 5
    return made


def update(node):
    number = system_update.stage(node.root, fresh=True)["slot"]
    system_update.publish(node.root)
    system_update.bless(node.run(number).root)
    return number


def come_up(node, place):
    """Firmware starts from this partition, and what it starts is well."""
    node.whole()
    number = node.starts(place)
    system_update.bless(node.run(number).root)
    return number


def states(cuts):
    """Each in which a partition, or which roots there are, is not as in the one before."""
    last = None
    for path in cuts.all():
        esps = [one for name in ("efi", "efi-2") for one in sorted((path / name).rglob("*")) if one.is_file()]
        looks = [(str(one.relative_to(path)), one.read_bytes()) for one in esps], sorted(os.listdir(path / "top"))
        if looks != last:
            yield path
        last = looks


def same(node):
    assert node.numbers(FIRST) == node.numbers(SECOND)
    assert node.starts(FIRST) == node.starts(SECOND)
    return node.numbers(FIRST)


def test_both_have_each_update_and_the_one_before(node):
    assert same(node) == [1, 5]
    update(node)
    assert same(node) == [5, 6]
    assert node.subvolumes() == ["@home", "@home.0", "@root.0", "@root.5", "@root.6", "@var", "@var.0"]


@pytest.mark.parametrize("gone", [FIRST, SECOND])
def test_firmware_that_prefers_the_disk_that_was_away_finds_a_system_and_then_the_newest(node, gone):
    """It started one whose root was gone, for ever; and the one to go back to had lost its root too."""
    node.there = [place for place in (FIRST, SECOND) if place != gone]
    assert [update(node), update(node)] == [6, 7]
    (here,) = node.there
    assert node.numbers(here) == [6, 7] and node.numbers(gone) == [1, 5]
    assert {"@root.1", "@root.5"} <= {*node.subvolumes()}
    node.there = [FIRST, SECOND]
    assert come_up(node, gone) == 5
    assert node.starts(FIRST) == node.starts(SECOND) == 7
    assert come_up(node, gone) == 7
    assert len(same(node)) == 2
    assert [name for name in node.subvolumes() if "root" in name][2:] == ["@root.7"]
    assert update(node) == 8
    assert same(node) == [7, 8]


@pytest.mark.parametrize("how", ["bless", "mirror"])
def test_firmware_that_starts_the_newer_disk_brings_the_other_up_to_it(node, how, monkeypatch):
    node.there = [SECOND]
    update(node), update(node)
    node.there = [FIRST, SECOND]
    if how == "bless":
        assert come_up(node, SECOND) == 7
    else:
        # A disk that is put back while the machine runs.
        monkeypatch.setattr(mirror, "mend", lambda _root: "done")
        assert main.main(["--root", node.root.path, "system", "mirror"]) == 0
    assert same(node) == [6, 7] and node.whole() == 7
    roots = [name for name in node.subvolumes() if "root" in name]
    assert roots == ["@root.0", "@root.6", "@root.7"]
    # And going back goes back, wherever firmware starts from.
    assert system_update.back(node.root, None)["to"] == 6
    assert node.starts(FIRST) == node.starts(SECOND) == 6


def test_a_disk_that_was_never_seen_holds_what_came_up_well(node):
    files.remove(node.root.join(system_update.partitions.SEEN))
    node.there = [SECOND]
    update(node), update(node)
    assert node.whole() == 7 and node.starts(FIRST) == 5


def test_data_are_mended_even_where_a_boot_entry_cannot_be_written(node, monkeypatch):
    said = []
    monkeypatch.setattr(mirror, "mend", said.append)

    def fails(_root):
        raise slots.NoSuchSlot("no")

    monkeypatch.setattr(system_update, "level", fails)
    assert main.main(["--root", node.root.path, "system", "mirror"]) != 0
    assert len(said) == 1


def test_power_cut_while_the_other_is_brought_up_leaves_both_startable(node, tmp_path):
    node.there = [SECOND]
    update(node), update(node)
    node.there = [FIRST, SECOND]
    node.run(7)
    with PowerCuts(node.folder, tmp_path / "states") as cuts:
        system_update.bless(node.root)
    for path in states(cuts):
        state = node.at(path)
        come_up(state, FIRST)
        come_up(state, FIRST)
        assert len(same(state)) == 2 and state.whole() == 7


@pytest.mark.parametrize("place", [FIRST, SECOND])
def test_power_cut_while_an_update_is_published_leaves_neither_half_done(node, tmp_path, place):
    system_update.stage(node.root, fresh=True)
    with PowerCuts(node.folder, tmp_path / "states") as cuts:
        system_update.publish(node.root)
    found = set()
    for path in states(cuts):
        state = node.at(path)
        found.add(come_up(state, place))
        again = come_up(state, FIRST)
        assert same(state)[-1] == again == come_up(state, SECOND)
    assert found == {5, 6}


@pytest.mark.parametrize("place", [FIRST, SECOND])
def test_power_cut_while_a_person_goes_back_leaves_neither_half_done(node, tmp_path, place):
    with PowerCuts(node.folder, tmp_path / "states") as cuts:
        assert system_update.back(node.root, None) == {"from": 5, "to": 1}
    found = set()
    for path in states(cuts):
        state = node.at(path)
        found.add(come_up(state, place))
        come_up(state, place)
        assert same(state) and state.whole() in (1, 5)
    assert found == {1, 5}


def test_an_update_that_was_prepared_while_a_disk_was_away_is_published_on_both(node):
    node.there = [SECOND]
    system_update.stage(node.root, fresh=True)
    node.there = [FIRST, SECOND]
    assert system_update.publish(node.root) == {"slot": 6}
    assert node.starts(FIRST) == node.starts(SECOND) == 6


def test_an_update_whose_entry_is_nowhere_is_not_called_published(node):
    number = system_update.stage(node.root, fresh=True)["slot"]
    for place in (FIRST, SECOND):
        slots.remove(str(node.folder / place[1:]), number)
    with pytest.raises(system_update.NothingStaged, match="prepare it again"):
        system_update.publish(node.root)
    assert node.record().known[number].state == "staged"


def test_going_back_goes_back_on_both_though_one_lacks_the_system(node):
    node.there = [SECOND]
    update(node), update(node)
    node.there = [FIRST, SECOND]
    assert system_update.back(node.root, None) == {"from": 7, "to": 6}
    assert node.starts(FIRST) == node.starts(SECOND) == 6


@pytest.mark.parametrize("place", [FIRST, SECOND])
def test_tries_that_were_used_up_on_one_are_used_up(node, place):
    system_update.stage(node.root, fresh=True)
    system_update.publish(node.root)
    node.fail(6, place)
    assert system_update.bless(node.run(5).root)["failed"]["slot"] == 6
    assert same(node) == [1, 5] and "@root.6" not in node.subvolumes()


def test_what_failed_while_a_disk_was_away_is_not_tried_again_from_it(node):
    system_update.stage(node.root, fresh=True)
    system_update.publish(node.root)
    node.there = [SECOND]
    node.fail(6, SECOND)
    system_update.bless(node.run(5).root)
    node.there = [FIRST, SECOND]
    assert node.starts(FIRST) == 6
    system_update.bless(node.run(5).root)
    assert same(node) == [1, 5]


def test_what_a_person_removed_while_a_disk_was_away_does_not_come_back(node):
    node.there = [SECOND]
    system_update.back(node.root, None)
    system_update.bless(node.run(1).root)
    node.there = [FIRST, SECOND]
    system_update.bless(node.run(1).root)
    assert node.starts(FIRST) == node.starts(SECOND) == 1


def test_a_kernel_of_apt_is_on_both_and_its_root_is_known_by_its_entry(node):
    for name in ("vmlinuz-6.13", "initrd.img-6.13"):
        files.write(node.root.join(f"/boot/{name}"), b"linux of 6 ")
    node.there = [SECOND]
    assert kernels.renew(node.root, "6.13")["slot"] == 6
    system_update.bless(node.run(6, own_root=5).root)
    node.there = [FIRST, SECOND]
    system_update.bless(node.root)
    assert 6 in same(node) and node.starts(FIRST) == 6
    found = next(slot for slot in slots.listing(str(node.folder / "efi")) if slot.number == 6)
    assert node.kind == "uki" or slots.root_of(found) == 5
    assert "@root.5" in node.subvolumes()


def test_one_without_room_does_not_stop_the_start_and_loses_nothing_that_it_names(node, monkeypatch, capsys):
    node.there = [SECOND]
    update(node), update(node)
    node.there = [FIRST, SECOND]
    real = fatfiles.require_room

    def full(folder, wanted):
        if os.path.realpath(folder).startswith(f"{node.folder}/efi") and "efi-2" not in folder:
            raise fatfiles.NotOnFat("it is full")
        real(folder, wanted)

    monkeypatch.setattr(fatfiles, "require_room", full)
    assert come_up(node, SECOND) == 7
    assert "it is full" in capsys.readouterr().err
    assert node.starts(FIRST) in (1, 5) and node.whole() == 7
    monkeypatch.setattr(fatfiles, "require_room", real)
    assert come_up(node, FIRST) == 5 and come_up(node, FIRST) == 7
    assert len(same(node)) == 2


def test_one_that_was_away_while_the_data_were_emptied_starts_with_the_old_ones_and_loses_no_new_ones(node):
    node.there = [SECOND]
    number = reset.reset(node.root, os.uname().nodename, data=True)["slot"]
    system_update.bless(node.run(number).root)
    files.write(str(node.top / "@var.6/lib/newer"), b"")
    update(node), update(node)
    node.there = [FIRST, SECOND]
    # What this disk starts has the record of before, which never heard of 7 and 8.
    assert come_up(node, FIRST) == 5
    assert Path(node.root.join("/var/lib/mine")).exists()
    assert (node.top / "@var.6/lib/newer").exists() and {"@root.7", "@root.8"} & {*node.subvolumes()}
    assert come_up(node, FIRST) == 8
    assert Path(node.root.join("/var/lib/newer")).exists()
    assert "@var" not in node.subvolumes() and 5 not in same(node)
    assert systems.load(node.root).known[8].state == "good"
