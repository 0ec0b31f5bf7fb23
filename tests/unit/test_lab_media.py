# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What media are booted on, as far as that needs no machine."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import uuid
import zlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ansible_collections.kind.kos.cli import booting
from ansible_collections.kind.kos.cli.lab import app
from ansible_collections.kind.kos.lab import machines, media, medium, pi_card, qemu
from ansible_collections.kind.kos.lab.errors import LabError, UsageError
from ansible_collections.kind.kos.lab.identity import Lab
from ansible_collections.kind.kos.lab.machines import Boot
from ansible_collections.kind.kos.lab.medium import Medium
from ansible_collections.kind.kos.plugins.plugin_utils import cloud_init
from ansible_collections.kind.kos.plugins.plugin_utils import media as manifests
from kos_image.asked import Asked

ROOT = {"amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae"}
SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
OTHER = "0fc63daf-8483-4772-8e79-3d69d8477de4"
PC = Medium(Path("/x/kos.raw"), "raw", 1 << 20, "amd64", stick=True)
CARD = Medium(Path("/x/pi.raw"), "raw", 3 << 20, "arm64", card=1 << 20)


def table(*partitions: tuple[str, str]) -> bytes:
    """The head of a disk with partitions of a type and a name, a MiB each."""
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", uuid.UUID(kind).bytes_le, uuid.uuid4().bytes_le, 2048 * (at + 1),
                    2048 * (at + 2) - 1, 0, name.encode("utf-16-le"))
        for at, (kind, name) in enumerate(partitions)
    ).ljust(128 * 128, b"\0")  # fmt: skip
    header = struct.pack(
        "<8sIIIIQQQQ16sQII", b"EFI PART", 0x10000, 92, 0, 0, 1, 9999, 34, 9000, b"\1" * 16, 2, 128, 128
    )
    header += struct.pack("<I", zlib.crc32(entries))
    header = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
    protective = (
        bytes(446) + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, 9999) + bytes(48) + b"\x55\xaa"
    )
    return protective + header.ljust(512, b"\0") + entries


def made(path: Path, *partitions: tuple[str, str]) -> Medium:
    path.write_bytes(table(*partitions))
    return medium.look(path)


def value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def told(boot: Boot, of: Medium = PC, accelerator: str = "tcg", kernel: str = "") -> list[str]:
    return machines.arguments(of, boot, machines.machine_for(of, boot), accelerator, kernel)


# --- what a medium says about itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_root_partition_tells_the_architecture(tmp_path: Path, architecture: str):
    found = made(tmp_path / "x.raw", (SYSTEM, "ESP"), (ROOT[architecture], "kos-root"))
    assert (found.architecture, found.stick, found.card) == (architecture, False, None)
    assert found.size == (tmp_path / "x.raw").stat().st_size


def test_a_stick_is_known_by_its_manifest(tmp_path: Path):
    assert made(tmp_path / "x.raw", (ROOT["amd64"], "kos-root"), (OTHER, "kos-manifest")).stick


def test_a_card_is_known_by_its_firmware(tmp_path: Path):
    assert made(tmp_path / "x.raw", (SYSTEM, "kos-firmware"), (ROOT["arm64"], "root")).card == 1 << 20
    assert made(tmp_path / "x.raw", (SYSTEM, "kos-esp"), (ROOT["arm64"], "root")).card is None


@pytest.mark.parametrize("content", [b"", b"\0" * 40_000, table((OTHER, "root"))])
def test_what_is_no_medium_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "x.raw").write_bytes(content)
    with pytest.raises(UsageError, match="kos-image build"):
        medium.look(tmp_path / "x.raw")
    with pytest.raises(UsageError, match="cannot be read"):
        medium.look(tmp_path / "none")


def test_a_qcow2_asks_its_manifest(tmp_path: Path):
    image = tmp_path / "x.qcow2"
    image.write_bytes(b"QFI\xfb" + struct.pack(">IQIIQ", 3, 0, 0, 16, 7 << 30))
    with pytest.raises(UsageError, match="manifest"):
        medium.look(image)
    about = manifests.About("development", "qcow2", "arm64", 0, "")
    content = manifests.Manifest(about, 1, None, (), ()).content()
    manifests.write_beside(image, manifests.parse(content, b""))
    assert medium.look(image) == Medium(image, "qcow2", 7 << 30, "arm64")


# --- the machine -----------------------------------------------------------------------------------------------------


def test_the_machine_follows_from_the_medium():
    assert machines.machine_for(PC, Boot()) == "pc"
    assert machines.machine_for(Medium(Path("/x"), "raw", 1, "arm64"), Boot()) == "virt"
    assert machines.machine_for(CARD, Boot()) == "raspi3b"


@pytest.mark.parametrize(
    ("of", "boot"),
    [
        (PC, Boot(machine="virt")),
        (CARD, Boot(machine="pc")),
        (Medium(Path("/x"), "raw", 1, "arm64"), Boot(firmware="bios")),
        (CARD, Boot(firmware="secure-boot")),
        (CARD, Boot(credentials={"a": "b"})),
        (PC, Boot(memory=64)),
    ],
)
def test_what_does_not_fit_is_refused(of: Medium, boot: Boot):
    with pytest.raises(UsageError):
        machines.machine_for(of, boot)


def test_a_stick_is_on_usb_and_a_disk_is_not():
    assert "usb-storage,bus=usb.0,removable=on,drive=medium,bootindex=0" in told(Boot())
    assert "virtio-blk-pci,drive=medium,bootindex=0" in told(Boot(usb=False))


def test_nothing_is_written_on_the_medium_unless_asked():
    assert not [word for word in told(Boot()) if machines.MEDIUM in word]
    assert [word for word in told(Boot(persist=True)) if f"file={machines.MEDIUM}" in word]


def test_there_is_no_network_without_ssh():
    assert value(told(Boot()), "-nic") == "none"
    assert "hostfwd=tcp:127.0.0.1:2222-:22" in value(told(Boot(ssh=2222)), "-netdev")


def test_a_pi_has_a_network_card_that_is_plugged_in():
    assert "usb-net,netdev=net" in told(Boot(ssh=2222), CARD)
    assert not [word for word in told(Boot(), CARD) if "net" in word]


def test_who_may_log_in_is_said():
    assert booting._login(PC, 2222) == "ssh -p 2222 root@localhost"
    assert booting._login(Medium(Path("/x"), "qcow2", 1, "amd64"), 2222) == f"ssh -p 2222 {cloud_init.LOGIN}@localhost"


@pytest.mark.parametrize(("accelerator", "said"), [(qemu.KVM, "half a minute"), (qemu.TCG, "emulated")])
def test_before_it_starts_it_says_how_long_that_takes_and_the_way_out(tmp_path: Path, monkeypatch, accelerator, said):
    found = made(tmp_path / "x.raw", (ROOT["amd64"], "root"))
    folder = contextlib.nullcontext(tmp_path)
    for name, value in {
        "_accelerator": lambda *_: accelerator, "_prepared": lambda *_: [], "_folder": lambda: folder,
    }.items():  # fmt: skip
        monkeypatch.setattr(media, name, value)
    heard: list[str] = []

    def start(*_argv, **_more):
        assert heard, "it started without a word"
        raise LabError("started")

    monkeypatch.setattr(media.subprocess, "Popen", start)
    with (
        pytest.raises(LabError, match="started"),
        media.booted(Lab("unit", tmp_path), tmp_path, found, Boot(), tell=heard.append),
    ):
        pass
    (accelerated,) = heard
    assert said in booting._starting(accelerated) and "Ctrl-A X" in booting._starting(accelerated)


def test_the_examples_name_what_kos_image_makes():
    named = re.findall(r"[\w-]*personal_node[\w.-]*", booting.boot.__doc__ or "")
    outputs = [re.sub(r".*node-(\w+)-.*", r"\1", name) for name in named]
    assert len(named) >= 4
    assert named == [Asked("personal_node", output, "amd64").file_name for output in outputs]


def test_no_secret_stands_on_the_command_line():
    arguments = told(Boot(credentials={"passwd.plaintext-password.root": "secret"}))
    assert not [word for word in arguments if "secret" in word]
    assert value(arguments, "-smbios") == "type=11,path=/run/medium/credential-0"


@pytest.mark.parametrize(("firmware", "flashes"), [("bios", 0), ("uefi", 2), ("secure-boot", 2)])
def test_firmware_and_its_variables(firmware: str, flashes: int):
    arguments = told(Boot(firmware=firmware))
    assert len([word for word in arguments if word.startswith("if=pflash")]) == flashes
    guarded = "driver=cfi.pflash01,property=secure,value=on" in arguments
    assert guarded == ("smm=on" in value(arguments, "-machine")) == (firmware == "secure-boot")


def test_a_machine_may_be_asked_not_to_restart():
    assert "-no-reboot" not in told(Boot())
    assert "-no-reboot" in told(Boot(restart=False))


# --- a Pi's card -----------------------------------------------------------------------------------------------------


def test_a_pi_is_given_kernel_and_command_line():
    arguments = told(Boot(), CARD, kernel="root=x console=ttyS1,115200")
    assert value(arguments, "-append") == "root=x console=ttyS1,115200"
    assert value(arguments, "-kernel") == "/run/medium/kernel"
    assert [word for word in arguments if word.startswith("if=sd,")]


@pytest.mark.parametrize(("size", "card"), [(1, 1), (3, 4), (4096, 4096), ((1 << 31) + 1, 1 << 32)])
def test_cards_have_a_size_that_qemu_takes(size: int, card: int):
    assert machines.card_size(size) == card


def test_config_names_kernel_and_initrd():
    assert pi_card.named("arm_64bit=1\nkernel=vmlinuz\ninitramfs initrd followkernel\n") == ("vmlinuz", "initrd")
    with pytest.raises(UsageError, match=r"config\.txt"):
        pi_card.named("arm_64bit=1\n")


def test_the_last_console_is_the_one_that_is_shown():
    shown = pi_card.arguments("console=serial0,115200 console=tty1 roothash=ab quiet\n")
    assert shown == "console=tty1 roothash=ab quiet console=ttyS1,115200"


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--firmware", "efi"], "bios, uefi, secure-boot"),
        (["--machine", "q35"], "pc, virt, raspi3b"),
        (["--grow", "8 GB"], "as in 8G"),
        (["--seed", "/none"], "no file /none"),
        (["--secure-boot-variables", "/none"], "no file /none"),
        (["--credential", "a"], "NAME=VALUE"),
        (["--machine", "virt"], "is for pc"),
    ],
)
def test_faults_are_said_before_anything_is_made(tmp_path: Path, options: list[str], said: str):
    made(tmp_path / "x.raw", (ROOT["amd64"], "root"))
    done = CliRunner().invoke(app, ["boot", str(tmp_path / "x.raw"), *options])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


# --- run files -------------------------------------------------------------------------------------------------------


def test_what_a_killed_command_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(media, "_TEMPORARY", tmp_path)
    left = tmp_path / f"{media._PREFIX}left"
    left.mkdir()
    os.utime(left, (0, 0))
    with media._folder() as first:
        os.utime(first, (0, 0))
        assert not left.exists()
        with media._folder() as second:
            assert sorted(tmp_path.iterdir()) == sorted([first, second])
    assert not list(tmp_path.iterdir())


def test_a_machine_has_disks_of_its_own_that_are_written_to(tmp_path):
    disks = (machines.Disk(tmp_path / "a.raw", "first"), machines.Disk(tmp_path / "b.raw", "second"))
    arguments = told(Boot(disks=disks))
    assert "virtio-blk-pci,drive=disk0,serial=first,bootindex=1" in arguments
    assert "virtio-blk-pci,drive=disk1,serial=second" in arguments
    assert "if=none,id=disk0,format=raw,file=/run/disk0,discard=unmap" in arguments
    turned = told(Boot(disks=disks, from_disk=True))
    assert "virtio-blk-pci,drive=disk0,serial=first,bootindex=0" in turned
    assert [word for word in turned if word.endswith("drive=medium,bootindex=1")]


def test_what_is_written_to_a_disk_can_be_recorded(tmp_path):
    arguments = told(Boot(disks=(machines.Disk(tmp_path / "a.raw", "first", tmp_path / "log"),)))
    assert "driver=blklogwrites,node-name=disk0,file=raw0,log=lograw0,log-sector-size=512" in arguments
    assert "virtio-blk-pci,drive=disk0,serial=first,bootindex=1,request-merging=off" in arguments


@pytest.mark.parametrize(
    ("boot", "said"),
    [
        (Boot(from_disk=True), "no disk to boot from"),
        (Boot(tpm=True), "needs a folder"),
        (Boot(disks=(machines.Disk(Path("/x"), "a" * 21),)), "serial number"),
        (Boot(disks=(machines.Disk(Path("/x"), "a,b"),)), "serial number"),
    ],
)
def test_what_no_machine_can_have_is_refused(boot, said):
    with pytest.raises(UsageError, match=said):
        machines.machine_for(PC, boot)


def test_what_a_machine_remembers_lies_in_a_folder_that_stays(tmp_path):
    arguments = told(Boot(state=tmp_path, tpm=True))
    assert "if=pflash,format=raw,unit=1,file=/run/state/variables.fd" in arguments
    assert "tpm-crb,tpmdev=tpm" in arguments
    assert "dir=/run/state/tpm" in machines.tpm_arguments()
    assert "if=pflash,format=raw,unit=1,file=/run/medium/variables.fd" in told(Boot())
