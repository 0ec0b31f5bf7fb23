# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing an image onto a stick: what is refused, and that a stick is either whole or does not boot."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess

import disks
import pytest
from disks import MIB
from rich.console import Console
from signatures import signer

from ansible_collections.kind.kos.plugins.module_utils.node import trust
from ansible_collections.kind.kos.plugins.plugin_utils import media
from ansible_collections.kind.kos.plugins.plugin_utils.media import About
from kos_image import sticks, writer
from kos_image.errors import HostError, Refused, UsageError
from kos_image.writer import HalfWritten

PARTITIONS = [("kos-root", MIB, 9 * MIB), ("kos-manifest", 10 * MIB, MIB)]
SIZE = 12 * MIB


def known():
    return {"maker": trust.parse_key(signer().public)[0]}


def console():
    return Console(file=io.StringIO())


@pytest.fixture
def image(tmp_path):
    return made(tmp_path)


def made(folder, output="usb", epoch=1):
    folder.mkdir(exist_ok=True)
    path = folder / "kos.img"
    path.write_bytes(disks.image(SIZE, PARTITIONS))
    media.embed(path, media.describe(path, About("personal_node", output, "amd64", epoch, "ab" * 32), signer()))
    return path


def row(name, number, kind="disk", size=64 * MIB, **more):
    return {"path": f"/dev/{name}", "maj:min": number, "type": kind, "size": size, **more}


STICK = row("sdb", "8:16", model="Ultra Fit ", serial="4C53", tran="usb", rm=True, fstype="iso9660", label="DEBIAN")


def machine(*rows):
    return sticks.read({"blockdevices": list(rows)})


def refused(disk_row, size=SIZE, needed=None):
    return sticks.refusal(machine(disk_row)[0], size, needed or {})


def test_only_what_can_be_pulled_out_is_offered():
    internal, empty = row("nvme0n1", "259:0"), row("sdc", "8:32", size=0, rm=True)
    (found,) = sticks.candidates(machine(internal, STICK, empty))
    assert (found.path, found.name, found.serial, found.holds) == ("/dev/sdb", "Ultra Fit", "4C53", "iso9660 DEBIAN")


def test_a_stick_is_fine():
    assert refused(STICK) is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"children": [row("sdb1", "8:17", "part", mountpoints=["/media"])]},
            "/dev/sdb1 is in use at /media",
        ),
        ({"mountpoints": ["/mnt"]}, "/dev/sdb is in use at /mnt: umount /mnt"),
        ({"children": [row("sdb2", "8:18", "part", mountpoints=["[SWAP]"])]}, "swapoff /dev/sdb2"),
        (
            {"children": [row("sdb1", "8:17", "part", children=[row("dm-0", "254:0", "crypt", mountpoints=["/x"])])]},
            "/dev/dm-0 is in use at /x",
        ),
        (
            {"children": [row("sdb1", "8:17", "part", children=[row("mapper/vg-lv", "254:1", "lvm")])]},
            "in use by /dev/mapper/vg-lv (lvm)",
        ),
        ({"ro": True}, "write-protected"),
        ({"size": SIZE - 1}, "take a larger stick"),
    ],
)
def test_a_disk_in_use_is_refused(more, said):
    assert said in (refused({**STICK, **more}) or "")


def test_the_disk_of_this_system_or_of_the_image_is_refused():
    disk = {**STICK, "children": [row("sdb3", "8:19", "part")]}
    assert refused(disk, needed={"8:19": "the image"}) == "the image is on /dev/sdb: name another disk"


def test_a_partition_is_refused():
    disk = machine({**STICK, "children": [row("sdb1", "8:17", "part")]})
    said = sticks.refusal(sticks.choose(disk, "/dev/sdb1"), 1, {})
    assert said == "/dev/sdb1 is no whole disk but a part: name the disk that it is on"


def test_one_disk_is_meant():
    twin = {**row("sdc", "8:32"), "serial": "4C53"}
    assert sticks.choose(machine(STICK), "4C53").path == "/dev/sdb"
    with pytest.raises(UsageError, match="more than one disk"):
        sticks.choose(machine(STICK, twin), "4C53")
    for selector in ("nothing", ""):
        with pytest.raises(UsageError, match="no disk"):
            sticks.choose(machine(STICK), selector)


def test_the_devices_that_are_needed(tmp_path):
    number = os.stat(tmp_path).st_dev
    image = tmp_path / "kos.img"
    image.touch()
    found = sticks.needed_devices(image, places=())
    assert found == {f"{os.major(number)}:{os.minor(number)}": "the image"}


def test_the_model_is_typed():
    disk = machine(STICK)[0]
    asked = []
    writer.confirm(disk, lambda text: asked.append(text) or "Ultra Fit")
    assert "iso9660 DEBIAN" in asked[0]
    with pytest.raises(UsageError, match="nothing was written"):
        writer.confirm(disk, lambda _text: "yes")

    def nobody(_text):
        raise EOFError

    with pytest.raises(UsageError, match="--yes"):
        writer.confirm(disk, nobody)


def test_an_altered_image_is_not_written(image):
    with image.open("r+b") as stream:
        stream.seek(5 * MIB)
        stream.write(b"?")
    with pytest.raises(Refused, match="kos-root, bytes 5242880"):
        writer.prove(image, known())


def test_an_image_that_no_stick_boots_is_not_written(tmp_path):
    with pytest.raises(UsageError, match="is a qcow2"):
        writer.prove(made(tmp_path, "qcow2"), known())


@pytest.fixture
def stick(tmp_path, monkeypatch):
    """A file where a device is opened: larger than the image, and full of an earlier life."""
    path = tmp_path / "stick"
    path.write_bytes(b"\xa5" * (40 * MIB))
    monkeypatch.setattr(writer, "_opened", lambda disk, _size: os.open(disk.path, os.O_RDWR))
    return dataclasses.replace(machine({**STICK, "path": str(path)})[0], size=40 * MIB)


def test_a_stick_is_the_image_and_nothing_of_its_earlier_life(image, stick, tmp_path):
    writer.write(image, writer.prove(image, known()), stick, known(), console())
    written = (tmp_path / "stick").read_bytes()
    assert written[:SIZE] == image.read_bytes()
    assert not any(written[SIZE : SIZE + 16 * MIB]) and not any(written[-MIB:])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "Input/output error")])
def test_a_stick_that_is_not_whole_does_not_boot_and_says_so(image, stick, tmp_path, monkeypatch, error):
    calls = iter(range(100))

    def stopped(_device):
        if next(calls) == 1:
            raise error

    monkeypatch.setattr(writer.os, "fsync", stopped)
    with pytest.raises(HalfWritten, match="Ultra Fit is unusable until it is written again"):
        writer.write(image, writer.prove(image, known()), stick, known(), console())
    assert not any((tmp_path / "stick").read_bytes()[:MIB])


def test_a_stick_that_forgets_is_found(image, stick, monkeypatch):
    put = writer._put
    monkeypatch.setattr(writer, "_put", lambda device, content, at: put(device, content[:-1] + b"x", at))
    with pytest.raises(HalfWritten, match="does not keep what is written"):
        writer.write(image, writer.prove(image, known()), stick, known(), console())


def test_a_stick_that_keeps_an_older_medium_is_found(image, stick, tmp_path, monkeypatch):
    older = made(tmp_path / "older", epoch=0).read_bytes()
    (tmp_path / "stick").write_bytes(older.ljust(40 * MIB, b"\0"))
    monkeypatch.setattr(writer, "_put", lambda *_: None)
    with pytest.raises(HalfWritten, match="another medium is still there"):
        writer.write(image, writer.prove(image, known()), stick, known(), console())


def test_a_file_is_no_disk(tmp_path):
    path = tmp_path / "notes"
    path.write_bytes(bytes(SIZE))
    with pytest.raises(HostError, match="another disk than a moment ago"):
        writer._opened(dataclasses.replace(machine(STICK)[0], path=str(path)), SIZE)


@pytest.fixture
def loop(tmp_path):
    """A real block device, where this machine has one to spare."""
    backing = tmp_path / "loop.img"
    backing.write_bytes(b"\xa5" * (40 * MIB))
    done = subprocess.run(["losetup", "--find", "--show", str(backing)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"not shown here: a write onto a real block device (losetup: {done.stderr.strip()})")
    yield done.stdout.strip()
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


def test_a_real_device_is_written(image, loop):
    report = writer.put(image, loop, known(), console(), None)
    assert report.signer == "maker"
    with open(loop, "rb") as stream:
        assert stream.read(SIZE) == image.read_bytes()
    busy = os.open(loop, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(HostError, match="cannot be opened"):
            writer.put(image, loop, known(), console(), None)
    finally:
        os.close(busy)
