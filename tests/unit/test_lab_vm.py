# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the vm driver that need no machine: arguments, archives, verdicts, offsets."""

from __future__ import annotations

import dataclasses
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_lab_host import GOOD

from ansible_collections.kind.kos.lab import host, kvm, power, qemu, state, vm_image
from ansible_collections.kind.kos.lab.errors import HostError, UsageError
from ansible_collections.kind.kos.lab.identity import Lab
from ansible_collections.kind.kos.lab.kvm import Verdict
from ansible_collections.kind.kos.plugins.plugin_utils import cpio

LAB = Lab("x", Path("/x"))
NODE = qemu.Machine("tcg", "52:54:00:5b:00:0b", "vb-n1")


def value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


# --- QEMU's arguments ------------------------------------------------------------------------------------------------


def test_a_node_is_on_the_labs_bridge_under_its_own_address():
    arguments = qemu.arguments(NODE)
    assert value(arguments, "-netdev").startswith("tap,id=net,ifname=vb-n1,")
    assert "mac=52:54:00:5b:00:0b" in " ".join(arguments)


def test_the_machine_to_go_on_from_has_the_same_devices_or_its_memory_would_not_fit():
    base = qemu.Machine("tcg", qemu.mac("10.0.0.0"))
    devices = [[word for word in qemu.arguments(machine) if "-pci" in word] for machine in (base, NODE)]
    assert [word.split(",mac=")[0] for word in devices[0]] == [word.split(",mac=")[0] for word in devices[1]]
    assert value(qemu.arguments(base), "-netdev").startswith("tap,id=net,script=no")


@pytest.mark.parametrize(("accelerator", "model"), [("tcg", "Westmere,vendor=AuthenticAMD"), ("kvm", "host")])
def test_accelerator_and_model_of_processor_belong_together(accelerator: str, model: str):
    arguments = qemu.arguments(dataclasses.replace(NODE, accelerator=accelerator))
    assert value(arguments, "-accel").split(",")[0] == accelerator
    assert value(arguments, "-cpu") == model


def test_only_a_node_that_was_given_one_has_a_spare_disk():
    assert "serial=spare" not in " ".join(qemu.arguments(NODE))
    given = " ".join(qemu.arguments(dataclasses.replace(NODE, spare=True)))
    assert "file=/disk/spare.raw" in given and "serial=spare" in given


def test_only_a_node_that_boots_has_usb():
    assert "qemu-xhci" not in " ".join(qemu.arguments(NODE))
    assert "qemu-xhci" in " ".join(qemu.arguments(dataclasses.replace(NODE, usb=True)))


def test_only_a_node_that_goes_on_gets_memory():
    assert "-incoming" not in qemu.arguments(NODE)
    going_on = dataclasses.replace(NODE, memory="/image/booted-tcg/memory")
    assert value(qemu.arguments(going_on), "-incoming") == "file:/image/booted-tcg/memory"


def test_no_argument_of_the_kernel_is_lost_or_split():
    assert "root=/dev/vda " in value(qemu.arguments(NODE), "-append")
    assert value(qemu.probe_arguments(), "-append") == "console=ttyS0 panic=-1"


@pytest.mark.parametrize(("backing", "kind"), [("/image/disk.ext4", "raw"), ("/image/booted-tcg/disk.qcow2", "qcow2")])
def test_disk_names_the_format_below_it(backing: str, kind: str):
    assert value(qemu.disk_arguments(backing), "-F") == kind


def test_hardware_address_follows_from_the_address():
    assert qemu.mac("10.91.0.11") == "52:54:00:5b:00:0b"
    assert qemu.mac("10.91.0.11") != qemu.mac("10.91.0.12")


def test_version_of_the_tree(tmp_path: Path):
    assert qemu.version(tmp_path) == ""
    status = tmp_path / "tools/var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("Package: a\nVersion: 1\n\nPackage: qemu-system-x86\nStatus: x\nVersion: 1:10.0.13+ds\n\n")
    assert qemu.version(tmp_path) == "1:10.0.13+ds"


# --- what follows the initrd -----------------------------------------------------------------------------------------


def unpacked(archive: bytes) -> Iterator[tuple[str, int, bytes]]:
    """The entries of an archive, by the format's description."""
    position = 0
    while True:
        assert archive[position : position + 6] == b"070701"
        numbers = [int(archive[position + at : position + at + 8], 16) for at in range(6, 110, 8)]
        mode, size, length = numbers[1], numbers[6], numbers[11]
        name = archive[position + 110 : position + 110 + length - 1].decode()
        content = position + 110 + length + (-(110 + length) % 4)
        if name == "TRAILER!!!":
            return
        yield name, mode, archive[content : content + size]
        position = content + size + (-size % 4)


NAMES = st.lists(
    st.text("abcdé.-", min_size=1, max_size=9).filter(lambda name: set(name) != {"."}), min_size=1, max_size=3
)


@given(st.dictionaries(NAMES.map(lambda parts: "/".join(["x", *parts, "file"])), st.binary(max_size=9), max_size=4))
def test_archive_holds_every_file_after_the_folders_it_lies_in(contents: dict[str, bytes]):
    entries = list(unpacked(cpio.archive({name: (0o640, content) for name, content in contents.items()})))
    files = {name: content for name, mode, content in entries if stat.S_ISREG(mode)}
    assert files == contents
    seen: set[str] = set()
    for name, _, _ in entries:
        assert "/" not in name or name.rpartition("/")[0] in seen
        assert name not in seen
        seen.add(name)


def test_archive_begins_on_a_boundary_of_four():
    assert cpio.appended(b"12345", {})[8:14] == b"070701"


def test_initrd_carries_the_identity_and_nothing_to_wait_for(tmp_path: Path):
    (tmp_path / "initrd").write_bytes(b"base")
    seed = {"etc/machine-id": (0o444, b"its own\n"), "root/.ssh/authorized_keys": (0o600, b"key\n")}
    entries = {name: (mode, content) for name, mode, content in unpacked(vm_image.initrd(tmp_path, seed)[4:])}
    assert entries["seed/etc/machine-id"][1] == b"its own\n"
    assert stat.S_IMODE(entries["seed/root/.ssh/authorized_keys"][0]) == 0o600
    assert not [name for name in entries if name.startswith("volatile")]


# --- /dev/kvm --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "ended", "usable", "why"),
    [
        ("[    0.000000] Linux version 6.12.0\n…Kernel panic", True, True, "started"),
        ("[    0.000000] Linux version 6.12.0\n", False, True, "started"),
        ("", False, False, "says nothing within"),
        ("qemu: Could not access KVM kernel module: Permission denied\n", True, False, "Permission denied"),
        ("kvm.c:3877: kvm_buf_set_msrs: Assertion failed.\n", True, False, "Assertion failed"),
        ("", True, False, "without a word"),
    ],
)
def test_verdict_on_kvm(output: str, ended: bool, usable: bool, why: str):
    found, said = kvm.judge(output, ended)
    assert found is usable
    assert why in said


def test_verdict_holds_until_this_machine_boots_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(kvm, "DEVICE", tmp_path)
    assert kvm.remembered(tmp_path) is None
    known = Verdict(True, "a kernel started on it", Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    (tmp_path / "kvm.json").write_text(json.dumps(dataclasses.asdict(known)))
    assert kvm.remembered(tmp_path) == known
    (tmp_path / "kvm.json").write_text(json.dumps(dataclasses.asdict(dataclasses.replace(known, boot="earlier"))))
    assert kvm.remembered(tmp_path) is None


def test_no_device_is_a_verdict_without_a_trial(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "none")
    verdict = kvm.remembered(tmp_path)
    assert verdict is not None
    assert not verdict.usable


# --- doctor ----------------------------------------------------------------------------------------------------------


def facts(**seen: object) -> dict[str, host.Fact]:
    return {fact.name: fact for fact in host.facts(dataclasses.replace(GOOD, **seen))}


def test_doctor_says_what_virtual_nodes_would_run_on():
    broken = host.VmSurvey("1:10.0.13", "/var/cache/x", Verdict(False, "a kernel does not start"), True)
    found = facts(vm=broken)
    assert "1:10.0.13" in found["vm: qemu"].value
    assert (found["vm: /dev/kvm"].value, found["vm: booted machine"].value) == ("not usable", "kept")
    assert "a kernel does not start" in found["vm: /dev/kvm"].means
    assert facts()["vm: /dev/kvm"].value == "not tried yet"


def test_doctor_says_what_no_node_shows():
    assert "kernel.*" in facts()["nspawn: not shown"].value
    assert "enforced limits" not in facts()["nspawn: not shown"].value
    assert "enforced limits" in facts(hybrid=True)["nspawn: not shown"].value


def test_virtual_nodes_are_never_in_the_way_of_the_others():
    arm = dataclasses.replace(GOOD, machine="aarch64")
    assert host.require(arm)
    assert "not shown here" in facts(machine="aarch64")["vm"].means


def test_machine_of_another_architecture_is_refused(monkeypatch):
    monkeypatch.setattr(vm_image.cache, "architecture", lambda: "arm64")
    with pytest.raises(HostError, match="nspawn"):
        vm_image.ensure(LAB, GOOD.apt, print)


# --- power and state -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "seconds"), [("+3d", 259_200), ("-90s", -90), ("+1h", 3600), ("-5m", -300)])
def test_offset_of_a_clock(text: str, seconds: int):
    assert power.offset(text) == seconds


@pytest.mark.parametrize("text", ["3d", "+3", "+d", "+1w", "+1d; reboot", "", "+9999999d"])
def test_malformed_offset_is_refused(text: str):
    with pytest.raises(UsageError, match=r"as in \+3d"):
        power.offset(text)


def test_a_node_of_an_older_state_is_of_the_first_driver(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Lab, "var", property(lambda lab: tmp_path))
    node = {"name": "n", "address": "", "address6": "", "root": "", "host_key": "", "ready": True}
    document = {"format": 1, "id": "x", "checkout": "/x", "subnet": "", "subnet6": "", "nodes": {"n": node}}
    (tmp_path / "state.json").write_text(json.dumps({**document, "forwards": []}))
    loaded = state.load(LAB)
    assert loaded is not None
    assert loaded.nodes["n"].driver == "nspawn"
