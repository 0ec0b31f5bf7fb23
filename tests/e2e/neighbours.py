# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that other systems are on, with an EFI partition large enough to be shared; what is there, as digests.

Both others start by shim, which firmware with Secure Boot takes, too. One goes on with GRUB, as Debian has it, and
starts the machine again. The other lies where Windows does, so that every boot loader takes it for that, and goes on
with shim's own manager of keys.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess

from crashrun import workplace

from ansible_collections.kind.kos.plugins.plugin_utils import partition_table

MIB = 1 << 20
DEBIAN, WINDOWS = "debian", "Microsoft/Boot"
# What each says on the serial line when it was started.
SAYS = {DEBIAN: "THIS IS THE OTHER SYSTEM", WINDOWS: "Press any key to perform MOK management"}
ESP_LABEL = "EFI system partition"
# The last lies behind the gap.
_TABLE = f"""\
label: gpt
start=1MiB, size=1100MiB, type=uefi, name="{ESP_LABEL}"
size=16MiB, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE, name="Microsoft reserved partition"
size=100MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name="Basic data partition"
start={{behind}}MiB, size=100MiB, type=linux, name="debian"
"""
_BEHIND = 200  # MiB: what the last partition and the table's copy take, and a little
_NTFS = b"\xebR\x90NTFS    "
_SHIM = "usr/lib/shim/shimx64.efi.signed"
_GRUB = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
_KEYS = "usr/lib/shim/mmx64.efi.signed"
_MENU = f'echo "{SAYS[DEBIAN]}"\nsleep 5\nreboot\n'.encode()
_CHUNK = 16 * MIB


def move_in(machine, disk, size):
    """Make the disk, of so many bytes; `machine` is the folder of the machine for disk tests."""
    with workplace(machine) as (work, tool):
        made = work / "disk"
        for file, length in ((made, size), (work / "esp", 1100 * MIB)):
            with file.open("wb") as stream:
                stream.truncate(length)
        tool("sfdisk", "--quiet", made, stdin=_TABLE.format(behind=size // MIB - _BEHIND).encode())
        tool("mkfs.vfat", "-F", "32", "-n", "SYSTEM", work / "esp")
        _fill(work / "files", machine / "tree")
        tool("mcopy", "-s", "-i", work / "esp", *sorted((work / "files").iterdir()), "::")
        _write(work / "esp", made, MIB)
        for one in partitions(made):
            if one.name != ESP_LABEL:
                content = random.Random(one.name).randbytes(one.size)  # noqa: S311
                (work / "part").write_bytes((_NTFS if "Basic" in one.name else b"") + content[len(_NTFS) :])
                _write(work / "part", made, one.start)
        subprocess.run(["cp", "--sparse=always", made, disk], check=True)


def _fill(folder, tree):
    """The boot files of both, and what firmware and Windows leave beside them."""
    shim, grub, keys = ((tree / name).read_bytes() for name in (_SHIM, _GRUB, _KEYS))
    found = {
        f"EFI/{DEBIAN}/shimx64.efi": shim,
        f"EFI/{DEBIAN}/grubx64.efi": grub,
        f"EFI/{DEBIAN}/grub.cfg": _MENU,
        f"EFI/{WINDOWS}/bootmgfw.efi": shim,
        # What shim goes on with is called so everywhere.
        f"EFI/{WINDOWS}/grubx64.efi": keys,
        "EFI/BOOT/BOOTX64.EFI": shim,
        "EFI/BOOT/grubx64.efi": grub,
        f"EFI/{WINDOWS}/BCD": bytes(range(256)) * 96,
        "EFI/HP/Diags.efi": b"MZ" + bytes(range(256)) * 4096,
        "System Volume Information/WPSettings.dat": b"\x0c\0\0\0",
    }
    for path, content in found.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def _write(source, disk, start):
    place = [f"of={disk}", "bs=1M", f"seek={start // MIB}", "conv=notrunc,sparse"]
    subprocess.run(["dd", f"if={source}", *place], check=True, capture_output=True)


def partitions(disk):
    """The partitions of a disk, as its table has them."""
    with disk.open("rb") as stream:
        return partition_table.read(stream.read(partition_table.HEAD)).partitions


def content(disk, found):
    """The digest of each of these partitions but the one that is shared, by label."""
    return {one.name: _digest(disk, one.start, one.size) for one in found if one.name != ESP_LABEL}


def _digest(disk, start, size):
    made = hashlib.sha256()
    with disk.open("rb") as stream:
        for at in range(start, start + size, _CHUNK):
            made.update(os.pread(stream.fileno(), min(_CHUNK, start + size - at), at))
    return made.hexdigest()


def files(machine, disk, label=ESP_LABEL):
    """The digest of every file on a FAT of a disk, by path."""
    (esp,) = [one for one in partitions(disk) if one.name == label]
    with workplace(machine) as (work, tool):
        where = [f"if={disk}", f"of={work}/esp", "bs=1M", f"skip={esp.start // MIB}", f"count={esp.size // MIB}"]
        subprocess.run(["dd", *where, "conv=sparse"], check=True, capture_output=True)
        (work / "files").mkdir()
        tool("mcopy", "-s", "-n", "-i", work / "esp", "::", work / "files")
        found = [path for path in sorted((work / "files").rglob("*")) if path.is_file()]
        return {str(path.relative_to(work / "files")): _digest(path, 0, path.stat().st_size) for path in found}
