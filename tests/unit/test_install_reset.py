# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back to what the installer left: only on a person's word, and in an order that a power cut cannot make worse."""

from __future__ import annotations

import contextlib
import os
import shutil
from types import SimpleNamespace

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import files, system
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import (
    candidate,
    layout,
    reset,
    slots,
    system_update,
    systems,
)
from ansible_collections.kind.kos.plugins.module_utils.node.machine.systems import Known, Record
from kos_install.actions import filesystems, pristine
from kos_install.storage.actions import Btrfs

NAME = os.uname().nodename


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Subvolumes are folders, and a snapshot is a copy."""
    top = tmp_path / "top"
    for name in ("@root.1", "@root.0", "@var", "@var.0", "@home", "@home.0"):
        (top / name).mkdir(parents=True)
    for name, text in (("@var.0/lib/fresh", "v"), ("@var/lib/data", "mine"), ("@root.0/etc/fstab", "subvol=@root.1")):
        files.write(str(top / name), text.encode())
    return top


@pytest.fixture
def done(disk, tmp_path, monkeypatch):
    calls = []

    def run(argv, stdin=None, check=True, timeout=None, environment=None):
        calls.append(" ".join(word.replace(f"{disk}/", "") for word in argv))
        if argv[:3] == ["btrfs", "subvolume", "snapshot"]:
            shutil.copytree(argv[-2], argv[-1])
        elif argv[:3] == ["btrfs", "subvolume", "delete"]:
            shutil.rmtree(argv[-1])
        elif argv[0] == "mv":
            os.rename(argv[-2], f"{argv[-2]}.x")
            os.rename(argv[-1], argv[-2])
            os.rename(f"{argv[-2]}.x", argv[-1])
        elif argv[0] == "cp":
            shutil.copytree(argv[-2], os.path.join(argv[-1], os.path.basename(argv[-2])))
        return SimpleNamespace(stdout=b"", returncode=0)

    monkeypatch.setattr(system, "run", run)
    monkeypatch.setattr(layout, "apart", lambda: None)
    monkeypatch.setattr(layout, "TOP", str(disk))
    monkeypatch.setattr(candidate, "TOP", str(disk))
    monkeypatch.setattr(layout, "mount_top", lambda _here: str(disk))
    monkeypatch.setattr(layout, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(layout, "esps", lambda: [str(tmp_path / "esp")])
    monkeypatch.setattr(reset, "_data_top", lambda: str(disk))
    monkeypatch.setattr(candidate, "_no_dpkg", contextlib.nullcontext)
    monkeypatch.setattr(candidate, "_ROOM", 0)
    monkeypatch.setattr(candidate, "entered", lambda _here, _number: contextlib.nullcontext())
    monkeypatch.setattr(candidate, "as_it_is", lambda _number: candidate.Upgraded([], "6.12", "k", "i"))
    monkeypatch.setattr(
        system_update, "stage_everywhere", lambda _root, _esps, entry: calls.append(f"stage {entry.number}")
    )
    monkeypatch.setattr(slots, "publish", lambda _esp, number: calls.append(f"publish {number}"))
    monkeypatch.setattr(slots, "listing", lambda _esp: [])
    return calls


@pytest.fixture
def root(tmp_path):
    made = Root(str(tmp_path / "node"))
    files.write(made.join(layout.CMDLINE), b"rootflags=subvol=@root.1 kos.slot=1")
    files.write(made.join(layout.MOUNTS), b"22 1 0:21 /@root.1 / rw - btrfs /dev/mapper/kos-root rw\n")
    systems.save(made, Record({1: Known(1, state="good")}, last=4))
    return made


def test_it_wants_the_name_of_the_machine_and_says_what_would_go(root, done):
    for data, what in ((False, "keeps /var and /home"), (True, "empties /var and /home")):
        with pytest.raises(reset.NotConfirmed, match=f"{what}; to confirm, add: --confirm {NAME}"):
            reset.reset(root, "another", data)
    assert done == []


def test_a_fresh_root_is_tried_like_an_update_and_data_stay(root, done, disk):
    assert reset.reset(root, NAME, data=False) == {"slot": 5, "data": False}
    assert (disk / "@root.5").is_dir()
    assert (disk / "@var/lib/data").read_text() == "mine"
    assert done[-2:] == ["stage 5", "publish 5"]
    assert systems.load(root).known[5].why == "reset"


def test_with_data_everything_fresh_is_in_place_before_it_may_start(root, done, disk):
    reset.reset(root, NAME, data=True)
    assert (disk / "@var/lib/fresh").exists()
    assert not (disk / "@var/lib/data").exists()
    # What was there stays until the fresh system has come up well, and the record of systems goes along.
    assert (disk / "@var.gone-5/lib/data").read_text() == "mine"
    assert (disk / "@var/lib/kos-system/record.json").exists()
    exchanged = [index for index, line in enumerate(done) if line.startswith("mv --exchange")]
    assert len(exchanged) == 2
    assert max(exchanged) < done.index("publish 5")


def test_what_was_put_aside_goes_when_the_fresh_one_is_well(root, done, disk):
    reset.reset(root, NAME, data=True)
    reset.sweep()
    assert not list(disk.glob("*.gone-*"))
    assert (disk / "@var/lib/fresh").exists()


def test_without_the_installers_snapshot_it_says_what_to_do(root, done, disk):
    shutil.rmtree(disk / "@root.0")
    with pytest.raises(reset.NotConfirmed, match="install anew from the medium"):
        reset.reset(root, NAME, data=False)


def test_the_installer_keeps_each_of_them_once(disk, done, monkeypatch):
    for kept in disk.glob("*.0"):
        shutil.rmtree(kept)
    one = Btrfs(
        id="btrfs", devices=["/dev/mapper/kos-root"], label="kos-root", uuid="u",
        subvolumes=["@root.1", "@var", "@log", "@home"],
    )  # fmt: skip
    context = SimpleNamespace(plan=SimpleNamespace(actions=[one]), log=lambda _text: None)
    monkeypatch.setattr(filesystems, "mounted", lambda *_arguments: contextlib.nullcontext(disk))
    monkeypatch.setattr(pristine, "run", lambda argv, log: system.run(argv))
    assert not pristine.are_kept(context)
    for _time in range(2):
        pristine.keep(context)
        assert pristine.are_kept(context)
    kept = [line for line in done if "snapshot -r" in line]
    assert [line.split()[-1] for line in kept] == ["@root.0", "@var.0", "@home.0"]
