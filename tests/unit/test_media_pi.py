# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Raspberry Pi's firmware partition: whole as it is made, and any missing piece is named."""

from __future__ import annotations

import io
import tarfile

import pytest

from kos_image import disk, node, pi
from kos_image.errors import ImageError
from kos_image.esp import Kernel

VERSION = "6.12.0-arm64"
SEED = disk.seed("personal_node", "pi", "arm64")
CLEAR, ENCRYPTED = pi.root(SEED, encrypted=False), pi.root(SEED, encrypted=True)
ARGUMENTS = ("console=tty0", "console=ttyS1,115200", "panic=30")
FIRMWARE = ("usr/lib/raspi-firmware/start4.elf", "usr/lib/raspi-firmware/fixup4.dat")
BOARDS = [
    *("bcm2711-rpi-4-b", "bcm2711-rpi-400", "bcm2711-rpi-cm4-io", "bcm2712-rpi-5-b", "bcm2837-rpi-3-a-plus"),
    *("bcm2837-rpi-3-b", "bcm2837-rpi-3-b-plus", "bcm2837-rpi-cm3-io3", "bcm2837-rpi-zero-2-w"),
]
TREES = [f"usr/lib/linux-image-{VERSION}/broadcom/{board}.dtb" for board in BOARDS]


def _root(path, names):
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(f"./{name}")
            info.size = 4
            tar.addfile(info, io.BytesIO(b"data"))
    return path


def _boots(folder, kernel=bytes(56) + b"ARM\x64" + bytes(4)):
    (folder / "vmlinuz").write_bytes(kernel)
    (folder / "initrd").write_bytes(b"initrd")
    return Kernel(folder / "vmlinuz", folder / "initrd", VERSION, ARGUMENTS, "kOS")


@pytest.fixture(params=[CLEAR, ENCRYPTED], ids=["in clear", "encrypted"])
def place(request):
    return request.param


@pytest.fixture
def card(tmp_path, place):
    """The content of a good partition."""
    root = _root(tmp_path / "root.tar", [*FIRMWARE, *TREES])
    folder = tmp_path / "card"
    folder.mkdir()
    pi.firmware(root, _boots(tmp_path), place, folder)
    return folder


def test_a_card_is_whole(card, place):
    assert pi.faults(card, place) == []
    line = (card / "cmdline.txt").read_text()
    assert line.startswith(f"console=tty0 console=ttyS1,115200 root={place.device} rw ")
    assert line.endswith(" ".join(("", "panic=30", *place.arguments)) + "\n")


def test_a_card_in_clear_names_its_file_system():
    assert pi.Root(f"UUID={node.root_uuid(SEED)}") == CLEAR


def test_an_encrypted_card_knows_where_its_root_will_be():
    told = dict(word.split("=", 1) for word in ENCRYPTED.arguments)
    assert ENCRYPTED.device == "/dev/mapper/kos-root"
    assert told["kos.card"] == str(node.partition_uuid(SEED))
    assert told["rd.luks.name"] == f"{node.luks_uuid(SEED)}=kos-root"
    # Whoever chooses a passphrase at the first start is not hurried, and nobody who mistypes it is shut out.
    assert {"tries=0", "x-systemd.device-timeout=0"} <= set(told["rd.luks.options"].split(","))
    assert len({node.root_uuid(SEED), node.partition_uuid(SEED), node.luks_uuid(SEED)}) == 3


@pytest.mark.parametrize(
    "name", ["start4.elf", "fixup4.dat", "bcm2712-rpi-5-b.dtb", "config.txt", "cmdline.txt", f"initrd.img-{VERSION}"]
)
def test_a_missing_file_is_found(card, place, name):
    (card / name).unlink()
    assert len(pi.faults(card, place)) == 1


def test_a_kernel_of_another_kind_is_found(card, place):
    (card / f"vmlinuz-{VERSION}").write_bytes(b"MZ" + bytes(100))
    assert pi.faults(card, place) == [f"vmlinuz-{VERSION} is no kernel for arm64 that the firmware can start"]


def test_the_line_must_say_where_this_root_is(card, place):
    said = ["cmdline.txt is not one line that says where the root is"]
    assert pi.faults(card, ENCRYPTED if place == CLEAR else CLEAR) == said
    line = (card / "cmdline.txt").read_text()
    (card / "cmdline.txt").write_text(line.replace(" rw ", "\n"))
    assert pi.faults(card, place) == said
    if place.arguments:
        (card / "cmdline.txt").write_text(line.replace(place.arguments[0], ""))
        assert pi.faults(card, place) == said


def test_a_root_without_the_firmware_is_refused(tmp_path):
    root = _root(tmp_path / "root.tar", TREES)
    with pytest.raises(ImageError, match="package that brings it is not in the definition"):
        pi.firmware(root, _boots(tmp_path), CLEAR, tmp_path / "card")


def test_a_card_that_would_not_boot_is_not_made(tmp_path):
    root = _root(tmp_path / "root.tar", [*FIRMWARE, *TREES])
    (tmp_path / "card").mkdir()
    with pytest.raises(ImageError, match="would not boot: vmlinuz-"):
        pi.firmware(root, _boots(tmp_path, b"MZ"), CLEAR, tmp_path / "card")


def test_debians_hook_is_told_what_the_card_begins_with(tmp_path, place):
    pi.settings(place, ARGUMENTS, tmp_path)
    told = (tmp_path / "etc/default/raspi-firmware").read_text()
    assert told == f'ROOTPART="{place.device}"\nCONSOLES="tty0 ttyS1,115200"\nCMA=0\n'
    extra = (tmp_path / "etc/default/raspi-extra-cmdline").read_text()
    assert extra == " ".join(("panic=30", *place.arguments)) + "\n"
