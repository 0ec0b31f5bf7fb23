# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kill, a power cut or a full disk may do to the node's own records: nothing."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import files, history, journal, rollback, space, store
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.journal import Journal

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def root(tmp_path):
    return Root(str(tmp_path / "target"))


@pytest.fixture
def begun(root):
    made = Journal(root)
    made.start(token="t", generation=1, id="i", previous=None, node={})
    return made


def refuse(*_arguments, **_options):
    raise FULL


def store_generation(root, number):
    files.write_json(root.state("generations", str(number), "manifest.json"), {"profile": "test", "services": []})


def test_a_write_is_on_disk_before_its_name_and_the_name_before_the_return(root, monkeypatch):
    done = []
    for name in ("fsync", "rename", "mkdir"):
        real = getattr(os, name)

        def call(*arguments, real=real, name=name):
            target = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else arguments[-1]
            done.append((name, os.path.relpath(target, root.path)))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)
    files.write(root.join("/etc/new/file"), b"content")
    assert done[-3:] == [
        ("fsync", "etc/new/file.kos-new"),
        ("rename", "etc/new/file"),
        ("fsync", "etc/new"),
    ]
    assert done.index(("mkdir", "etc/new")) < done.index(("fsync", "etc")) < done.index(("rename", "etc/new/file"))


def test_a_removed_name_is_gone_for_good(root, monkeypatch):
    files.write(root.join("/etc/file"), b"")
    synced = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    files.remove(root.join("/etc/file"))
    assert synced == [root.join("/etc/file")]


def test_a_write_that_finds_no_space_leaves_the_old_file_and_nothing_else(root, monkeypatch):
    files.write(root.join("/etc/file"), b"old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        files.write(root.join("/etc/file"), b"new")
    assert os.listdir(root.join("/etc")) == ["file"]
    assert files.read(root.join("/etc/file")) == b"old"


def test_half_a_record_on_a_full_disk_does_not_spoil_the_next(root, begun, monkeypatch):
    real = os.write

    def half(descriptor, content):
        real(descriptor, content[: len(content) // 2])
        raise FULL

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "write", half)
        begun.write("unit", name="lost", active=True)
    begun.write("reverting")
    assert [record["op"] for record in Journal(root).records] == ["begin", "reverting"]
    assert [record["op"] for record in begun.records] == ["begin", "reverting"]


def test_a_record_cut_short_by_a_power_cut_is_dropped(root, begun):
    with open(root.state("transaction", "journal"), "ab") as stream:
        stream.write(b'{"op": "fi')
    assert [record["op"] for record in Journal(root).records] == ["begin"]


def test_no_transaction_begins_without_the_space_to_go_back(root, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="No space"):
        Journal(root).start(token="t")
    assert not Journal(root).open
    assert not os.path.exists(root.state("transaction"))


def test_the_space_to_go_back_is_really_taken_and_given_back(root, begun):
    reserve = root.state("transaction", "reserve")
    blocks = [os.stat(os.path.join(reserve, name)).st_blocks * 512 for name in os.listdir(reserve)]
    assert (len(blocks), sum(blocks)) == (journal.RESERVE_FILES, journal.RESERVE_BYTES)
    begun.free_reserve()
    assert not os.path.exists(reserve)


def test_only_a_step_that_ended_waits_for_its_controller(begun):
    assert begun.at_rest
    for op, rests in (("armed", False), ("file", False), ("switched", True), ("reverting", False)):
        begun.write(op)
        assert begun.at_rest is rests


def test_going_back_clears_what_a_killed_write_left(root, begun):
    begun.keep_original(root, "/etc/kos/db/db.conf")
    files.make_directory(root.join("/etc/kos/db"))
    with open(root.join("/etc/kos/db/db.conf.kos-new"), "wb"):
        pass
    begun.restore(root, begun.records[-1])
    assert not os.path.exists(root.join("/etc/kos"))


def test_a_generation_that_was_taken_back_is_no_place_to_roll_back_to(root, begun):
    for number in (1, 2, 3):
        store_generation(root, number)
    for number in (1, 2):
        history.record(root, number, str(number), "committed")
    store.point_current(root, 2)
    begun.keep_original(root, f"{files.STATE}/history.json")
    history.record(root, 3, "3", "committed")
    begun.restore(root, begun.records[-1])
    history.record(root, 3, "3", "reverted")
    assert rollback.previous_number(root) == 1


def test_half_a_pruned_generation_is_none(root, monkeypatch):
    for number in range(1, 9):
        store_generation(root, number)
    store.point_current(root, 8)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(store.shutil, "rmtree", refuse)
        store.prune(root)
    assert [row["number"] for row in store.listing(root)] == [4, 5, 6, 7, 8]
    store.prune(root)
    assert sorted(os.listdir(root.state("generations"))) == ["4", "5", "6", "7", "8"]


def disk(monkeypatch, free_mb, free_inodes=10**6, inodes=10**6):
    state = SimpleNamespace(f_bavail=free_mb * 10**6, f_frsize=1, f_files=inodes, f_favail=free_inodes)
    monkeypatch.setattr(os, "statvfs", lambda _path: state)


def test_what_does_not_fit_is_refused_with_the_figures(tmp_path, monkeypatch):
    disk(monkeypatch, free_mb=100)
    needs = [space.for_change(10), *space.for_packages(30_000_000, 90_000_000)]
    with pytest.raises(space.NoRoom) as caught:
        space.require(Root(str(tmp_path)), needs)
    assert str(caught.value) == (
        "no room on the disk of /var/lib: 154 MB are needed (34 MB for the change itself, 30 MB of downloads,"
        " 90 MB of installed packages), 100 MB are free: free 54 MB more, then run again"
    )


def test_files_are_counted_where_a_file_system_has_a_table_of_them(tmp_path, monkeypatch):
    disk(monkeypatch, free_mb=1000, free_inodes=5)
    with pytest.raises(space.NoRoom, match="246 more files are needed"):
        space.require(Root(str(tmp_path)), [space.for_change(10)])
    disk(monkeypatch, free_mb=1000, free_inodes=0, inodes=0)
    space.require(Root(str(tmp_path)), [space.for_change(10)])


def test_a_full_disk_is_a_sentence():
    error = OSError(errno.ENOSPC, "No space left on device", "/var/lib/kos/x")
    assert files.spoken(error) == "no space is left on the node's disk (/var/lib/kos/x): free some, then run again"
