# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proved of a disk before it may start: what lacks is as wrong as what is there and should not be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from golden_installs import answers
from installs import BLANK, DESK

from kos_install.actions import mounts, proofs
from kos_install.actions.context import Context
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


def proved(monkeypatch, target, opens, clevis=("tang-key\n", 0)):
    """What is said of a header with a slot for the TPM's first start and one of a Tang server."""
    tokens = {"1": {"type": "kos-enrol", "keyslots": ["1"]}, "2": {"type": "clevis", "keyslots": ["2"]}}
    monkeypatch.setattr(proofs.luks, "dump", lambda _device: {"tokens": tokens})
    monkeypatch.setattr(proofs.luks, "slot_opens", lambda _device, key, slot: opens.get(slot) == key)
    monkeypatch.setattr(proofs, "outcome", lambda _argv: clevis)
    context = SimpleNamespace(plan=plan(answers(storage={"disk": {"serial": "WD-1"}}), MACHINE), target=target)
    return [(one.good, one.found) for one in proofs.machine_keys(context)]


def test_the_keys_of_the_tpm_and_of_tang_are_tried(monkeypatch, tmp_path):
    (tmp_path / "etc/kos/enrol").mkdir(parents=True)
    (tmp_path / "etc/kos/enrol/key").write_text("left")
    good = {"1": "left", "2": "tang-key"}
    assert proved(monkeypatch, tmp_path, good) == [(True, ""), (True, "")]
    assert proved(monkeypatch, tmp_path, {}) == [(False, ""), (False, "")]
    assert proved(monkeypatch, tmp_path, good, ("no answer\n", 1)) == [(True, ""), (False, "no answer")]
    assert proved(monkeypatch, tmp_path / "none", {"1": "", "2": "tang-key"}) == [(False, ""), (True, "")]


def test_of_a_fido2_key_it_is_said_that_it_was_not_tried(monkeypatch):
    header = {"keyslots": {"0": {}, "1": {}}, "tokens": {"0": {"type": "systemd-fido2", "keyslots": ["1"]}}}
    monkeypatch.setattr(proofs.luks, "dump", lambda _device: header)
    monkeypatch.setattr(proofs.luks, "slot_opens", lambda _device, _key, slot: slot == "0")
    monkeypatch.setattr(proofs.luks, "opens", lambda _device, _key: False)
    asked = answers(storage={"disk": {"serial": "WD-1"}}, encryption={"fido2": True, "recovery_key": False})
    made, log = plan(asked, MACHINE.model_copy(update={"fido2": True})), []
    wanted = next(one for one in made.actions if one.kind == "luks")
    context = Context(asked, MACHINE, made, secrets={"passphrase": "x"}, log=log.append)
    assert all(one.good for one in proofs._keys(context, wanted, "/dev/sda3"))
    assert log == ["NOT TRIED: kos-root: that the FIDO2 key opens slot 1: it would have to be touched"]


@pytest.mark.parametrize(("said", "good"), [("mapper/kos-root", True), ("dm-0", True), ("sda3", False)])
def test_the_kernel_may_name_an_encrypted_root_either_way(monkeypatch, tmp_path, said, good):
    """Of a mirror it does: a device of btrfs is called as it was when somebody last looked at it."""
    (tmp_path / "mapper").mkdir()
    (tmp_path / "dm-0").touch()
    (tmp_path / "mapper/kos-root").symlink_to("../dm-0")
    monkeypatch.setattr(proofs.system_layout, "MAPPER", str(tmp_path / "mapper"))
    monkeypatch.setattr(proofs, "run", lambda argv: str(tmp_path / said) if argv[0] == "findmnt" else "")
    monkeypatch.setattr(proofs, "_tables", lambda _context: ())
    *_disks, root = proofs.mounts(SimpleNamespace(plan=PLAN, target=tmp_path))
    assert root.what == "the root of the system lies on an encrypted device" and root.good is good
