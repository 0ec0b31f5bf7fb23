# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order a disk loses what was on it and gets what is new, and what the firmware's list loses."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node.machine.system_layout import TYPES
from kos_install.actions import boot, disks, finish, partitions, release, wipe
from kos_install.actions.boot import Place
from kos_install.actions.disks import Node
from kos_install.errors import ApplyFailed
from kos_install.hardware.model import Disk, Machine, Partition
from kos_install.storage.actions import Kept, Partitioned, Table, Target, Wipe

MIB = 1 << 20
TARGET = Target(path="/dev/sda", serial="s", size=1000 * MIB)


def node(path, number=0, kind="", size=100 * MIB, children=()):
    return Node(path, "part" if number else "disk", size, "s", False, "", "", number, "", kind, 0, 512, (),
                tuple(children))  # fmt: skip


@pytest.fixture
def done(monkeypatch):
    """What was done to the disk, in order."""
    found = []
    monkeypatch.setattr(disks, "overwrite", lambda path, pieces: found.append((path, pieces)))
    monkeypatch.setattr(disks, "settle", lambda: None)
    monkeypatch.setattr(disks, "forget", lambda _path, _log: None)
    monkeypatch.setattr(release, "free", lambda _path, _log: None)
    monkeypatch.setattr(wipe, "quiet", lambda _path: contextlib.nullcontext())
    monkeypatch.setattr(wipe, "run", lambda argv, **_how: found.append(argv[-1]))
    monkeypatch.setattr(wipe, "_prove", lambda _path: None)
    return found


@pytest.mark.parametrize("esp", [TYPES["esp"], "0xef"])
def test_what_starts_the_old_system_goes_before_the_system(done, monkeypatch, esp):
    parts = [node("/dev/sda1", 1, TYPES["data"]), node("/dev/sda2", 2, esp), node("/dev/sda3", 3, TYPES["bios"])]
    disk = node("/dev/sda", size=1000 * MIB, children=parts)
    monkeypatch.setattr(disks, "find", lambda _target: disk)
    monkeypatch.setattr(disks, "look", lambda _path: [disk])
    wipe.perform(SimpleNamespace(log=lambda _line: None), Wipe(id="wipe", disk=TARGET))
    assert done[0] == ("/dev/sda", [(0, 440)]), "the code in the first sector, and not the table"
    wiped = [one for one in done if isinstance(one, str)]
    firmware = ["/dev/sda2", "/dev/sda3"]
    assert wiped[:4] == [*firmware, "/dev/sda1", "/dev/sda"]


@pytest.mark.parametrize("wiped", [False, True])
def test_where_a_partition_will_lie_is_empty_before_the_table_says_so(done, monkeypatch, wiped):
    disk = node("/dev/sda", size=1000 * MIB)
    monkeypatch.setattr(disks, "find", lambda _target: disk)
    monkeypatch.setattr(disks, "reread", lambda _path, _log: done.append("read"))
    for name in ("_kept_as_planned", "_make", "_compare", "_clean"):
        monkeypatch.setattr(partitions, name, lambda *_more: None)
    monkeypatch.setattr(partitions, "_rows", lambda *_more: {})
    monkeypatch.setattr(partitions, "_shadow", lambda _disk: contextlib.nullcontext(0))
    monkeypatch.setattr(partitions, "_copy", lambda *_more: done.append("table"))
    monkeypatch.setattr(partitions, "stands", lambda *_more: True)
    part = Partitioned(number=4, label="kos-esp", type=TYPES["esp"], uuid="u", start=200 * MIB, size=64 * MIB)
    action = Table(id="table", disk=TARGET, wipe=wiped, make=[part])
    partitions.perform(SimpleNamespace(log=lambda _line: None), action)
    assert done == [("/dev/sda", [(200 * MIB, 16 * MIB), (263 * MIB, MIB)]), "table", "read"]


def test_a_small_partition_is_emptied_as_a_whole():
    assert wipe.ends(MIB, MIB) == [(MIB, MIB), (MIB, MIB)]


def debian_13s_sfdisk():
    """Whether it can be told the size of sectors, as that of the medium can."""
    help_text = subprocess.run(["sfdisk", "--help"], capture_output=True, text=True, check=False).stdout
    return "--sector-size" in help_text


@pytest.mark.skipif(not (shutil.which("sfdisk") and debian_13s_sfdisk()), reason="no sfdisk of Debian 13 here")
def test_only_what_is_still_empty_leaves_a_table_for_what_is_new(tmp_path, monkeypatch):
    """The real table, on a file: partitions 2 and 3 of an install that never began, beside somebody's."""
    file, size = tmp_path / "disk", 64 * MIB
    file.write_bytes(bytes(size))
    uuids = [f"{digit * 8}-0000-4000-8000-000000000000" for digit in "123456"]
    rows = [(1, 8, "data", TYPES["root-amd64"]), (9, 1, "kos-journal", TYPES["journal"]),
            (10, 20, "kos-root", TYPES["root-amd64"])]  # fmt: skip
    script = ["label: gpt", *(f'start={start * 2048}, size={long * 2048}, type={kind}, name="{name}", uuid={uuid}'
                              for (start, long, name, kind), uuid in zip(rows, uuids, strict=False))]  # fmt: skip
    subprocess.run(["sfdisk", "-q", file], input="\n".join(script), text=True, check=True)
    kept, *gone = (
        Kept(number=number, start=start * MIB, size=long * MIB, uuid=uuid)
        for number, ((start, long, _name, _kind), uuid) in enumerate(zip(rows, uuids, strict=False), 1)
    )
    new = Partitioned(number=2, label="kos-root", type=TYPES["root-amd64"], uuid=uuids[5], start=9 * MIB, size=30 * MIB)
    target = Target(path=str(file), serial="s", size=size)
    action = Table(id="table", disk=target, wipe=False, make=[new], preserve=[kept], remove=gone)
    monkeypatch.setattr(disks, "find", lambda _target: node(str(file), size=size))
    monkeypatch.setattr(disks, "reread", lambda *_: None)
    monkeypatch.setattr(partitions, "_clean", lambda *_: None)
    monkeypatch.setattr(partitions, "stands", lambda *_: True)
    context = SimpleNamespace(log=lambda _text: None)

    def write(at, content):
        with file.open("r+b") as stream:
            stream.seek(at)
            stream.write(content)

    def table():
        said = subprocess.run(["sfdisk", "--json", file], capture_output=True, check=True).stdout
        return [row["uuid"].lower() for row in json.loads(said)["partitiontable"]["partitions"]]

    write(8 * MIB, b"somebody's")
    write(9 * MIB, b"a torn journal")
    write(10 * MIB, b"LUKS")
    with pytest.raises(ApplyFailed, match="partition 3 is not empty any more"):
        partitions.perform(context, action)
    assert table() == uuids[:3]
    write(10 * MIB, bytes(4))
    partitions.perform(context, action)
    assert table() == [uuids[0], uuids[5]]
    with pytest.raises(ApplyFailed, match="partition 2 is not as it was"):
        partitions.perform(context, action)


OWN, GONE, THERE = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "abc")
LISTED = f"""BootCurrent: 0001
Boot0001* kOS\tHD(1,GPT,{OWN},0x800,0x200000)/File(\\EFI\\BOOT\\BOOTX64.EFI)
Boot0002* kOS (second disk)\tHD(1,GPT,{GONE},0x800,0x200000)/File(\\EFI\\BOOT\\BOOTX64.EFI)
Boot0003* kOS\tHD(1,GPT,{THERE},0x800,0x200000)/File(\\EFI\\kos\\shimx64.efi)
Boot0004* Windows Boot Manager\tHD(2,GPT,{GONE},0x800,0x32000)/File(\\EFI\\Microsoft\\Boot\\bootmgfw.efi)
Boot000A  kOS\tHD(1,GPT,{GONE.upper()},0x800,0x200000)/File(\\EFI\\BOOT\\BOOTX64.EFI)
"""


def _ours():
    """As the machine was detected before the wipe: an older kOS on the disk, and one by this very plan."""
    parts = [Partition(number=1, start=MIB, size=MIB, uuid=uuid) for uuid in (GONE, OWN)]
    other = Disk(path="/dev/sdb", size=MIB, serial="t", partitions=[Partition(number=1, start=0, size=1, uuid=THERE)])
    made = Partitioned(number=1, label="kos-esp", type=TYPES["esp"], uuid=OWN, start=MIB, size=MIB)
    table = Table(id="table", disk=TARGET, wipe=True, make=[made])
    # It has another path now; its serial number is its own.
    machine = Machine(disks=[Disk(path="/dev/sdc", size=TARGET.size, serial="s", partitions=parts), other])
    return finish._ours(SimpleNamespace(plan=SimpleNamespace(actions=[table]), machine=machine))


def test_entries_of_the_systems_that_a_plan_wiped_leave_the_firmwares_list(monkeypatch):
    """That of a kOS on another disk stays, though the disk may be unplugged now."""
    ran = []

    def run(argv, **_how):
        ran.append(argv)
        return LISTED

    monkeypatch.setattr(finish, "run", run)
    monkeypatch.setattr(boot, "disk_of", lambda _device: "/dev/sda")
    monkeypatch.setattr(Path, "read_text", lambda _path, **_how: "1\n")
    finish._enter_one(Place(f"/dev/disk/by-partuuid/{OWN}", "/efi"), "kOS", "EFI/BOOT/BOOTX64.EFI", _ours())
    gone = [argv[-1] for argv in ran if "--delete-bootnum" in argv]
    assert gone == ["0001", "0002", "000A"]
    assert "--create" in ran[-1]
