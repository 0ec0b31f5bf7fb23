# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found out before the first byte is written: a system without an image, an EFI partition without room."""

from __future__ import annotations

import json

import pytest
from installs import KEY

from ansible_collections.kind.kos.plugins.module_utils.node.machine import bootloader
from kos_install import ready
from kos_install.actions import shared, unpack
from kos_install.actions.context import Context
from kos_install.answers import Answers
from kos_install.engine import apply
from kos_install.errors import ApplyFailed
from kos_install.hardware.model import Machine
from kos_install.storage.actions import Plan

DISK = {"path": "/dev/sda", "serial": "S1", "size": 1 << 34}
PLAN = Plan.model_validate_json(
    json.dumps({"actions": [
        {"kind": "wipe", "id": "wipe", "disk": DISK},
        {"kind": "unpack", "id": "unpack"},
        {"kind": "boot", "id": "boot", "loader": "systemd-boot", "esps": ["/dev/sda1"]},
    ]})
)  # fmt: skip
ANSWERS = Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}})


@pytest.fixture
def medium(tmp_path, monkeypatch):
    """A system that has all that an install needs."""
    image, initrd = tmp_path / "root", tmp_path / "initrd"
    image.write_bytes(b"hsqs" + bytes(92))
    initrd.write_bytes(b"07070")
    monkeypatch.setattr(unpack, "IMAGE", image)
    monkeypatch.setattr(ready, "INITRD", initrd)
    monkeypatch.setattr(ready.shutil, "which", lambda tool, path: f"/usr/bin/{tool}")
    return tmp_path


def test_a_medium_that_installs_is_ready(medium):
    ready.check(PLAN)


@pytest.mark.parametrize("lacking", ["root", "initrd"])
def test_without_an_image_nothing_is_begun(medium, monkeypatch, lacking):
    (medium / lacking).unlink()
    monkeypatch.setattr(apply, "LOCK", medium / "lock")
    monkeypatch.setattr(apply.mount, "close_all", lambda *_: None)
    told = []
    context = Context(ANSWERS, Machine(), PLAN, action=lambda *what: told.append(what))
    with pytest.raises(ApplyFailed, match=f"not started from a medium that installs.*{lacking}.*nothing was written"):
        apply.install(context)
    assert told == []


def test_what_is_no_squashfs_is_no_image(medium):
    (medium / "root").write_bytes(bytes(96))
    with pytest.raises(ApplyFailed, match="is no system image"):
        ready.check(PLAN)


def test_a_program_that_lacks_is_named(medium, monkeypatch):
    monkeypatch.setattr(ready.shutil, "which", lambda tool, path: None if tool == "unsquashfs" else tool)
    with pytest.raises(ApplyFailed, match="it has no unsquashfs"):
        ready.check(PLAN)


@pytest.mark.parametrize(("cmdline", "found"), [(f"quiet roothash={'a' * 64} panic=1\n", "a" * 64), ("quiet\n", "")])
def test_an_image_is_known_by_its_root_hash(tmp_path, cmdline, found):
    (tmp_path / "cmdline").write_text(cmdline)
    assert ready.image(tmp_path / "cmdline") == found


def test_an_esp_is_not_shared_with_another_systemd_boot_and_needs_room(tmp_path):
    conf = tmp_path / bootloader.LOADER_CONF
    assert list(ready.unshareable(tmp_path, 0)) == []
    conf.parent.mkdir()
    conf.write_text(bootloader.configuration())
    assert list(ready.unshareable(tmp_path, 0)) == []
    conf.write_text("timeout 10\ndefault fedora\n")
    conflict, room = ready.unshareable(tmp_path, 1 << 60)
    assert "belongs to another system" in conflict and "MiB free" in room


def test_what_a_kos_left_that_is_gone_is_not_taken_for_what_is_installed(tmp_path):
    entry = tmp_path / "loader/entries/kos-1.conf"
    entry.parent.mkdir(parents=True)
    entry.write_text("#linux /kos/1/linux\n")  # never finished: it is replaced
    assert list(ready.unshareable(tmp_path, 0)) == []
    entry.write_text(" linux /kos/1/linux\n")
    (left,) = ready.unshareable(tmp_path, 0)
    assert "has boot entries of a kOS that is not on this disk any more" in left


def test_an_update_needs_as_much_room_again(tmp_path, monkeypatch):
    (tmp_path / "vmlinuz-6.12").write_bytes(bytes(1000))
    monkeypatch.setattr(ready, "INITRD", tmp_path / "initrd")
    (tmp_path / "initrd").write_bytes(bytes(2000))
    assert ready.needed(tmp_path) - ready.needed(tmp_path / "none") == 2 * 1000


def test_only_what_is_ours_is_taken_off_a_shared_esp(tmp_path):
    entries = [f"loader/entries/{name}.conf" for name in ("kos-1", "recovery-kos", "other-kos-debian")]
    ours = ["EFI/kos/kosx64.efi", "kos/1/initrd", *entries, "EFI/Linux/kos-1.efi"]
    theirs = ["EFI/BOOT/BOOTX64.EFI", "EFI/Microsoft/Boot/bootmgfw.efi", "loader/entries/arch.conf"]
    for name in (*ours, *theirs):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    conf = tmp_path / bootloader.LOADER_CONF
    conf.write_text("default arch\n")
    found = [path.relative_to(tmp_path).as_posix() for path in shared.own(tmp_path)]
    assert found == ["EFI/kos", *entries, "EFI/Linux/kos-1.efi", "kos"]
    conf.write_text(bootloader.configuration())
    assert list(shared.own(tmp_path))[-1] == conf
