# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd-repart is told of a medium's partitions, and GRUB's place in it."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest

from ansible_collections.kind.kos.plugins.plugin_utils import partition_table as table
from kos_image import disk, grub
from kos_image.definition import Partition
from kos_image.disk import Content
from kos_image.errors import ImageError
from kos_image.filesystems import Verity

PLACE = table.Partition("kos-bios", grub.BIOS_BOOT, "", 2048 * 512, 1 << 20)


class Recorder:
    """Tools that note what they are asked for."""

    def __init__(self):
        self.asked = []

    def run(self, argv, folders, environ=None):
        files = {name: {f.name: f.read_text() for f in sorted(path.glob("*.conf"))} for name, path in folders.items()}
        self.asked.append((list(argv), dict(folders), files))
        return ""


def test_a_partition_is_a_copy_of_its_content_and_has_its_uuid(tmp_path):
    uuid = UUID(int=7)
    said = disk.definition(
        Partition(label="kos-root", content="root"), {"root": Content(tmp_path / "root.squashfs", uuid)}
    )
    assert said == (f"[Partition]\nType=root\nLabel=kos-root\nCopyBlocks=/build/root/root.squashfs\nUUID={uuid}\n")


def test_a_partition_without_content_has_the_size_it_is_given():
    said = disk.definition(Partition(label="kos-bios", content="bios", size_mb=1), {})
    assert "SizeMinBytes=1M\nSizeMaxBytes=1M\n" in said
    assert f"Type={grub.BIOS_BOOT}" in said


def test_a_partition_whose_content_nobody_makes_is_named():
    with pytest.raises(ImageError, match="kos-data holds the data"):
        disk.definition(Partition(label="kos-data", content="data"), {})


def test_repart_is_told_all_partitions_in_order_and_no_path_of_the_build_machine(tmp_path):
    tools = Recorder()
    layout = [Partition(label="kos-esp", content="esp", size_mb=64), Partition(label="kos-root", content="root")]
    seed = disk.seed("personal_node", "usb", "amd64")
    disk.assemble(
        tools,
        layout,
        {"esp": Content(tmp_path / "e"), "root": Content(tmp_path / "r")},
        seed,
        "amd64",
        tmp_path / "disk.raw",
    )
    [(argv, folders, files)] = tools.asked
    assert list(files["definitions"]) == ["01.conf", "02.conf"]
    assert folders["root"] == folders["out"] == tmp_path
    assert f"--seed={seed}" in argv
    assert not any(str(tmp_path) in word for word in argv)


def test_media_of_different_names_share_no_uuid():
    names = [("a", "usb", "amd64"), ("a", "usb", "arm64"), ("b", "usb", "amd64"), ("a", "disk", "amd64")]
    assert len({disk.seed(*name) for name in names}) == len(names)
    assert disk.seed(*names[0]) == disk.seed(*names[0])


def test_a_root_hash_names_both_of_its_partitions():
    found = Verity("0123456789abcdef0123456789abcdef" + "fedcba9876543210fedcba9876543210")
    assert found.data_uuid == UUID("01234567-89ab-cdef-0123-456789abcdef")
    assert found.hash_uuid == UUID("fedcba98-7654-3210-fedc-ba9876543210")


def test_the_first_sector_knows_where_grubs_core_is():
    code = grub.started(bytes(range(256)) * 2, PLACE)
    assert len(code) == 440  # what follows is the disk's signature and the old partition table
    assert struct.unpack_from("<Q", code, 0x5C) == (2048,)
    assert code[0x66:0x68] == b"\x90\x90"


def test_grubs_core_knows_where_its_rest_is():
    image = grub.placed(b"x" * 1300, PLACE)
    assert len(image) == 3 * 512
    assert struct.unpack_from("<QH", image, 0x1F4) == (2049, 2)


def test_a_core_larger_than_its_partition_is_refused():
    with pytest.raises(ImageError, match="make that larger"):
        grub.placed(bytes(PLACE.size + 1), PLACE)


def test_arguments_reach_the_kernel_as_they_are():
    entry = grub.Entry("kOS $x", "/kos/vmlinuz", "/kos/initrd", ["roothash=ab", "a=$b;c"])
    said = grub.configuration([entry], 3)
    assert "set timeout=3\n" in said
    assert "menuentry 'kOS $x' {\n  linux /kos/vmlinuz 'roothash=ab' 'a=$b;c'\n  initrd /kos/initrd\n}\n" in said
    assert "search" not in said


def test_a_root_elsewhere_is_searched_by_its_uuid():
    assert "search --no-floppy --fs-uuid --set=root 1234\n" in grub.configuration([], 0, "1234")


def test_what_grub_would_read_otherwise_is_refused():
    with pytest.raises(ImageError, match="quotation mark"):
        grub.configuration([grub.Entry("kOS", "/k", "/i", ["a='b"])], 0)
