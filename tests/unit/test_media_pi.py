# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Raspberry Pi's firmware partition: whole as it is made, and any missing piece is named."""

from __future__ import annotations

import io
import tarfile

import pytest

from kos_image import pi
from kos_image.errors import ImageError
from kos_image.esp import Kernel

VERSION = "6.12.0-arm64"
UUID = "0b7c8d7e-0000-4000-8000-000000000001"
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


@pytest.fixture
def card(tmp_path):
    """The content of a good partition."""
    root = _root(tmp_path / "root.tar", [*FIRMWARE, *TREES])
    folder = tmp_path / "card"
    folder.mkdir()
    pi.firmware(root, _boots(tmp_path), UUID, folder)
    return folder


def test_a_card_is_whole(card):
    assert pi.faults(card, UUID) == []
    line = (card / "cmdline.txt").read_text()
    assert line.startswith(f"console=tty0 console=ttyS1,115200 root=UUID={UUID} rw ")
    assert line.endswith(" panic=30\n")


@pytest.mark.parametrize(
    "name", ["start4.elf", "fixup4.dat", "bcm2712-rpi-5-b.dtb", "config.txt", "cmdline.txt", f"initrd.img-{VERSION}"]
)
def test_a_missing_file_is_found(card, name):
    (card / name).unlink()
    assert len(pi.faults(card, UUID)) == 1


def test_a_kernel_of_another_kind_is_found(card):
    (card / f"vmlinuz-{VERSION}").write_bytes(b"MZ" + bytes(100))
    assert pi.faults(card, UUID) == [f"vmlinuz-{VERSION} is no kernel for arm64 that the firmware can start"]


def test_the_line_must_name_this_root(card):
    assert pi.faults(card, "another") == ["cmdline.txt is not one line that names the root file system"]
    (card / "cmdline.txt").write_text(f"root=UUID={UUID}\nquiet\n")
    assert pi.faults(card, UUID) == ["cmdline.txt is not one line that names the root file system"]


def test_a_root_without_the_firmware_is_refused(tmp_path):
    root = _root(tmp_path / "root.tar", TREES)
    with pytest.raises(ImageError, match="package that brings it is not in the definition"):
        pi.firmware(root, _boots(tmp_path), UUID, tmp_path / "card")


def test_a_card_that_would_not_boot_is_not_made(tmp_path):
    root = _root(tmp_path / "root.tar", [*FIRMWARE, *TREES])
    (tmp_path / "card").mkdir()
    with pytest.raises(ImageError, match="would not boot: vmlinuz-"):
        pi.firmware(root, _boots(tmp_path, b"MZ"), UUID, tmp_path / "card")


def test_debians_hook_is_told_what_the_card_begins_with(tmp_path):
    pi.settings(UUID, ARGUMENTS, tmp_path)
    told = (tmp_path / "etc/default/raspi-firmware").read_text()
    assert told == f'ROOTPART="UUID={UUID}"\nCONSOLES="tty0 ttyS1,115200"\nCMA=0\n'
    assert (tmp_path / "etc/default/raspi-extra-cmdline").read_text() == "panic=30\n"
