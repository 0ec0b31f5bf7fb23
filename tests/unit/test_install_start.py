# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an installed node starts: what its kernel is told, what its gate waits for, where the firmware's files lie."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import kos_image
from ansible_collections.kind.kos.plugins.module_utils.node import files, system
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import layout, systems, trial
from ansible_collections.kind.kos.plugins.module_utils.node.machine.systems import Known, Record
from kos_install.actions import boot, mounts
from kos_install.answers import Answers
from kos_install.storage.actions import Btrfs, Luks, Mount, Plan

TREE = Path(kos_image.__file__).parent / "trees/installed"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP nobody"
ESP = "/dev/disk/by-partuuid/6f1b1c52-0000-4000-8000-000000000001"


def plan(*labels):
    opened = [
        Luks(id=f"luks-{name}", device=f"/dev/disk/by-partuuid/{name}", name=name, uuid=f"uuid-of-{name}",
             memory_kib=65536, iterations=4, threads=1, recovery_key=False)
        for name in labels
    ]  # fmt: skip
    roots = [f"/dev/mapper/{name}" for name in labels if name != "kos-data"]
    system = Btrfs(id="btrfs", devices=roots, label="kos-root", uuid="1111", subvolumes=[])
    mounted = Mount(
        id="mount", mounts=[(roots[0], "/", "subvol=@root.1"), (roots[0], "/var", "subvol=@var"), (ESP, "/efi", "")]
    )
    return Plan(actions=[*opened, system, mounted])


@pytest.fixture
def told(tmp_path, monkeypatch):
    """The kernel's arguments, by what the medium was started with, the serial ports there are, and answers."""

    def found(medium="", ports=(), labels=("kos-root",), **more):
        (tmp_path / "cmdline").write_text(medium)
        for name, kind in ports:
            (tmp_path / name).mkdir()
            if kind is not None:
                (tmp_path / name / "type").write_text(f"{kind}\n")
        monkeypatch.setattr(boot, "_CMDLINE", tmp_path / "cmdline")
        monkeypatch.setattr(boot, "_TERMINALS", tmp_path)
        answers = Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}, **more})
        return boot.arguments(SimpleNamespace(plan=plan(*labels), answers=answers))

    return found


def test_swap_and_data_of_another_system_are_left_alone(told):
    assert {"systemd.gpt_auto=0", "rd.systemd.gpt_auto=0"} <= set(told())


def test_whatever_stops_a_start_the_machine_tries_again_and_gives_no_shell(told):
    assert {"rd.shell=0", "rd.emergency=reboot", "panic=30"} <= set(told())
    # What the medium does where it cannot be proved is not for the node; how long it waits after a panic is.
    other = told("rd.emergency=halt panic=5 kos.answers=/x")
    assert "panic=5" in other and "rd.emergency=reboot" in other
    assert len([word for word in other if word.startswith(("panic=", "rd.emergency="))]) == 2
    assert not [word for word in other if word.startswith("kos.")]


def test_later_entries_have_what_the_first_one_has(told):
    first = told()
    assert layout.arguments_for(first, 2) == [word.replace("@root.1", "@root.2") for word in first]


@pytest.mark.parametrize(
    ("ports", "kept"),
    [
        ([("tty0", None), ("ttyS0", 4)], ["console=tty0", "console=ttyS0,115200"]),
        ([("tty0", None), ("ttyS0", 0)], ["console=tty0"]),
        ([("tty0", None)], ["console=tty0"]),
    ],
)
def test_only_consoles_that_the_machine_has_are_kept(told, ports, kept):
    found = told("quiet console=tty0 console=ttyS0,115200 console=tty0", ports)
    assert [word for word in found if word.startswith("console=")] == kept


def test_a_tpm_is_waited_for_only_where_one_was_asked_for(told):
    both = plan("kos-root", "kos-data")
    assert "rd.luks.options=discard,tries=0,tpm2-device=auto" in told(
        encryption={"secure_boot": "own", "tpm2": {}}, labels=("kos-root", "kos-data")
    )
    assert "rd.luks.options=discard,tries=0" in mounts.arguments(both)
    _fstab, crypttab = mounts.entries(both, tpm2=True)
    assert "kos-data UUID=uuid-of-kos-data none luks,discard,tries=0,tpm2-device=auto\n" in crypttab.content
    _fstab, crypttab = mounts.entries(both)
    assert "tpm2" not in crypttab.content


# The partitions of the firmware


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A system on trial whose two partitions of the firmware are in fstab, and neither is mounted."""
    made = Root(str(tmp_path))
    rows = "# /dev/sda1 /efi\nUUID=1A2B-3C4D /efi vfat nofail 0 2\nPARTUUID=abc /efi-2 vfat nofail 0 2\n"
    files.write(made.join("/etc/fstab"), rows.encode())
    files.write(made.join(layout.CMDLINE), b"rootflags=subvol=@root.3 kos.slot=4\n")
    files.write(made.join(layout.MOUNTS), b"22 1 0:21 /@root.3 / rw shared:1 - btrfs /dev/mapper/kos-root rw\n")
    monkeypatch.setattr(layout, "apart", lambda: None)
    monkeypatch.setattr(trial, "_BETWEEN", 0.01)
    return made


@pytest.fixture
def firmware(monkeypatch):
    """Devices that are there and places where something is mounted, as `esps` sees them."""
    seen = SimpleNamespace(devices=set(), mounted=set())
    rows = {"/efi": "/dev/disk/by-uuid/1A2B-3C4D", "/efi-2": "/dev/disk/by-partuuid/abc"}

    def run(argv, *_more, **_how):
        assert argv[-2] in seen.devices
        seen.mounted.add(argv[-1])

    monkeypatch.setattr(layout, "firmware", lambda _root: rows)
    monkeypatch.setattr(system, "run", run)
    monkeypatch.setattr(os, "makedirs", lambda *_more, **_how: None)
    monkeypatch.setattr(os.path, "ismount", lambda path: path in seen.mounted)
    monkeypatch.setattr(os.path, "exists", lambda path: path in seen.devices)
    return seen


def test_the_firmwares_partitions_are_those_of_fstab_not_of_a_label(node):
    assert layout.firmware(node) == {"/efi": "/dev/disk/by-uuid/1A2B-3C4D", "/efi-2": "/dev/disk/by-partuuid/abc"}


def test_each_is_reached_mounted_or_not_and_one_may_be_missing(firmware):
    firmware.mounted = {"/efi-2"}
    assert layout.esps() == ["/efi-2"]
    firmware.devices = {"/dev/disk/by-uuid/1A2B-3C4D"}
    assert layout.esps() == [f"{layout.UNMOUNTED}/efi", "/efi-2"]
    # Again, in the same run.
    assert layout.esps() == [f"{layout.UNMOUNTED}/efi", "/efi-2"]
    firmware.mounted = firmware.devices = set()
    with pytest.raises(layout.OtherLayout, match="mount it, then run again"):
        layout.esps()


def test_the_gate_waits_for_a_partition_of_the_firmware_that_comes_late(node, tmp_path, monkeypatch):
    """Its mount holds up no start, so it may come after the gate began: that is no reason to go back."""
    esp, looks = tmp_path / "esp", []
    (esp / "loader/entries").mkdir(parents=True)
    (esp / "loader/entries/kos-4+2-1.conf").write_text(" linux /kos/4/linux\n")

    def late():
        looks.append(1)
        if len(looks) < 3:
            raise layout.OtherLayout("no EFI system partition is mounted")
        return [str(esp)]

    monkeypatch.setattr(layout, "esps", late)
    monkeypatch.setattr(trial, "unfinished", lambda: "")
    monkeypatch.setattr(trial, "first_complaint", lambda _root: "")
    assert trial.judge(node, 1, 1)
    assert len(looks) == 3


def test_the_gate_is_ordered_behind_every_mount_that_fstab_makes():
    unit = (TREE / "usr/lib/systemd/system/kos-healthy.service").read_text()
    after = {name for line in re.findall(r"^After=(.*)$", unit, re.MULTILINE) for name in line.split()}
    assert {"efi.mount", r"efi\x2d2.mount"} <= after
    assert not re.search(r"^(Requires|BindsTo)=.*efi", unit, re.MULTILINE)


@pytest.mark.parametrize(("state", "restarts"), [("published", True), ("good", False)])
def test_an_emergency_without_an_esp_restarts_only_who_was_on_trial(node, monkeypatch, state, restarts):
    def gone():
        raise layout.OtherLayout("no EFI system partition is mounted")

    monkeypatch.setattr(layout, "esps", gone)
    systems.save(node, Record({4: Known(3, state=state)}))
    assert trial.lost(node) is restarts
