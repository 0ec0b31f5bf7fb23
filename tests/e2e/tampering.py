# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stranger with the stick in his hands: one change at a time, of the kind that does harm where nobody looks."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils import cpio, partition_table

KERNEL, INITRD, MENU, UNIFIED = "kos/vmlinuz", "kos/initrd", "EFI/debian/grub.cfg", "EFI/Linux/kos.efi"
MARK = "kos.stranger"


def flip(path, offset, bit=0):
    """Alter one bit of a file in its place."""
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([old ^ 1 << bit]))


def copy(image, target):
    """A copy of an image to tamper with; zeros take no room."""
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", image, target], check=True)
    return target


def partitions(image):
    """The partitions of an image, by label."""
    with image.open("rb") as file:
        return {one.name: one for one in partition_table.read(file.read(partition_table.HEAD)).partitions}


def signature(image):
    """Where the signature of its manifest starts: behind a head of 48 bytes, which names both lengths, and the JSON."""
    with image.open("rb") as file:
        start = partitions(image)["kos-manifest"].start
        file.seek(start + 8)
        at = start + 48 + int.from_bytes(file.read(4), "little")
        file.seek(at)
        assert file.read(10) == b"-----BEGIN"
    return at


@dataclass(frozen=True)
class Stick:
    """A copy of an image that may be tampered with.

    `media` has mtools and `tool` runs a program of the toolbox; `unified`: its kernel is one signed file on UEFI.
    """

    image: Path
    media: object
    unified: bool = False
    tool: object = None

    def read(self, name):
        """A file of its boot partition."""
        self._mtools("mcopy", "-n", f"::{name}", "/run/medium/file")
        return self._file.read_bytes()

    def write(self, name, content):
        """Put other content into a file of its boot partition."""
        self._file.write_bytes(content)
        self._mtools("mcopy", "-o", "/run/medium/file", f"::{name}")

    @property
    def _file(self):
        folder = self.image.with_suffix(".work")
        folder.mkdir(exist_ok=True)
        return folder / "file"

    def _mtools(self, program, *argv):
        found = partitions(self.image)
        fat = found.get("kos-esp") or found["kos-firmware"]
        where = f"/run/image@@{fat.start}"
        folder = self._file.parent
        self.media.tool("amd64", folder, {"image": self.image}, program, argv[0], "-i", where, *argv[1:])

    def remove(self):
        """Throw the copy away."""
        self.image.unlink()
        shutil.rmtree(self._file.parent)

    def kernel(self):
        """Alter one bit of what a kernel calls itself, which nobody needs to boot."""
        name, base = (UNIFIED, _section(self.read(UNIFIED), ".linux")[0]) if self.unified else (KERNEL, 0)
        content = bytearray(self.read(name))
        # The boot protocol of Linux on x86: a pointer to the version stands at 0x20e, less 512.
        at = base + 512 + struct.unpack_from("<H", content, base + 0x20E)[0]
        content[at] ^= 1
        self.write(name, bytes(content))

    def initrd(self):
        """Give the initrd one more file; of a unified kernel image, alter one byte of it."""
        if self.unified:
            content = bytearray(self.read(UNIFIED))
            start, size = _section(content, ".initrd")
            content[start + size // 2] ^= 1
            self.write(UNIFIED, bytes(content))
        else:
            extra = {"etc/stranger": (0o644, b"was here\n")}
            self.write(INITRD, cpio.appended(self.read(INITRD), extra))

    def command_line(self):
        """Give the kernel one more argument."""
        if self.unified:
            self._in_unified(rb"console=tty0", b"quiet       ")
        else:
            self.write(MENU, re.sub(rb"(\n  linux [^\n]*)", rb"\1 " + MARK.encode(), self.read(MENU)))

    def root_hash(self):
        """Ask for another root than there is."""
        found = rb"(roothash=)([0-9a-f])"
        if self.unified:
            self._in_unified(found, _other_digit)
        else:
            self.write(MENU, re.sub(found, _other_digit, self.read(MENU)))

    def root(self):
        """Alter one bit of the root, in the superblock, which every mount reads."""
        flip(self.image, partitions(self.image)["kos-root"].start + 8)

    def replaced(self):
        """Put another root in the place of the old one, with a proof of its own, and ask for that."""
        parts = partitions(self.image)
        work = self._file.parent
        _take(self.image, parts["kos-root"], work / "root")
        flip(work / "root", 8)
        self.tool(
            work, "veritysetup", "format", "/build/work/root", "/build/work/proof", "--root-hash-file=/build/work/hash"
        )
        digest = (work / "hash").read_text().strip()
        for name, file, half in (("kos-root", "root", digest[:32]), ("kos-verity", "proof", digest[32:])):
            assert (work / file).stat().st_size <= parts[name].size
            _put(self.image, parts[name].start, (work / file).read_bytes())
            _rename(self.image, parts[name].id, half)
        if self.unified:
            self._in_unified(rb"roothash=[0-9a-f]{64}", f"roothash={digest}".encode())
        else:
            self.write(MENU, re.sub(rb"roothash=[0-9a-f]{64}", f"roothash={digest}".encode(), self.read(MENU)))

    def _in_unified(self, pattern, by):
        content = self.read(UNIFIED)
        start, size = _section(content, ".cmdline")
        line = content[start : start + size]
        changed = re.sub(pattern, by, line)
        assert len(changed) == len(line)
        assert changed != line
        self.write(UNIFIED, content[:start] + changed + content[start + size :])


def _take(image, part, target):
    with image.open("rb") as file:
        file.seek(part.start)
        target.write_bytes(file.read(part.size))


def _put(image, at, content):
    with image.open("r+b") as file:
        file.seek(at)
        file.write(content)


def _rename(image, old, new):
    """Give a partition another id, in both partition tables (UEFI Specification, chapter 5)."""
    size = image.stat().st_size
    for header_at, entries_at in ((512, 1024), (size - 512, size - 33 * 512)):
        with image.open("rb") as file:
            file.seek(entries_at)
            entries = file.read(128 * 128).replace(uuid.UUID(old).bytes_le, uuid.UUID(new).bytes_le)
            file.seek(header_at)
            header = bytearray(file.read(92))
        struct.pack_into("<I", header, 88, zlib.crc32(entries))
        struct.pack_into("<I", header, 16, 0)
        struct.pack_into("<I", header, 16, zlib.crc32(header))
        _put(image, entries_at, entries)
        _put(image, header_at, bytes(header))


def _other_digit(found):
    return found[1] + (b"0" if found[2] != b"0" else b"1")


def _section(program, name):
    """Where a section of an EFI program lies in its file, and its length (Microsoft's PE format, 4)."""
    head = struct.unpack_from("<I", program, 0x3C)[0]
    count, optional = struct.unpack_from("<H12xH", program, head + 6)
    for number in range(count):
        at = head + 24 + optional + 40 * number
        if program[at : at + 8].rstrip(b"\0") == name.encode():
            virtual, _address, size, start = struct.unpack_from("<IIII", program, at + 8)
            return start, min(virtual, size)
    raise AssertionError(f"no section {name}")


def random_bits(image, number, chance):
    """Where to alter bits: `number` offsets all over an image, no two in one chunk of 4 MiB while there are enough."""
    size = os.path.getsize(image)
    chunk = 4 << 20
    chunks = chance.sample(range(size // chunk), min(number, size // chunk))
    rest = [chance.randrange(size) for _ in range(number - len(chunks))]
    return sorted([one * chunk + chance.randrange(chunk) for one in chunks] + rest)
