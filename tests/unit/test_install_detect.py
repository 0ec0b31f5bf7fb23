# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine is, read from a /sys made for the test and from what lsblk and wipefs print."""

from __future__ import annotations

import json
import struct
import subprocess
import uuid

import pytest
from installs import KEY

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names
from ansible_collections.kind.kos.plugins.module_utils.node.machine.signatures import Signature, signature, system
from kos_install.actions import disks as applied
from kos_install.answers import Answers
from kos_install.engine import journal
from kos_install.hardware import detect, firmware, reading
from kos_install.hardware.disks import disks, under
from kos_install.hardware.model import Machine
from kos_install.storage.actions import Plan, Unpack

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
MIB = 1 << 20


class Fake:
    """A /sys and /dev in a folder, and the programs that would have read the disks themselves."""

    def __init__(self, root):
        self.root, self.rows, self.signatures, self.asked = root, [], {}, []

    def write(self, path, content=""):
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())

    def disk(self, name, size, parts=(), **more):
        row = {
            "path": f"/dev/{name}", "kname": name, "type": "disk", "size": size, "model": None, "serial": None,
            "tran": None, "rm": False, "ro": False, "rota": False, "log-sec": 512, "pttype": "gpt" if parts else None,
            "parttype": None, "partuuid": None, "partlabel": None, "mountpoints": [None], **more,
        }  # fmt: skip
        self.write(f"sys/devices/{name}/size", str(size // 512))
        self._link(f"sys/class/block/{name}", f"sys/devices/{name}")
        children = []
        for number, part in enumerate(parts, 1):
            kname = f"{name}{'p' if name[-1].isdigit() else ''}{number}"
            place = f"sys/devices/{name}/{kname}"
            self.write(f"{place}/partition", f"{number}\n")
            self.write(f"{place}/start", f"{2048 * number}\n")
            self.write(f"{place}/size", f"{part.pop('sectors', 2048)}\n")
            self._link(f"sys/class/block/{kname}", place)
            children.append({**row, "path": f"/dev/{kname}", "kname": kname, "type": "part", **part})
        self.rows.append({**row, **({"children": children} if children else {})})

    def holder(self, below, name, called=""):
        self.write(f"sys/devices/virtual/{name}/size", "1")
        self._link(f"sys/class/block/{name}", f"sys/devices/virtual/{name}")
        if called:
            self.write(f"sys/devices/virtual/{name}/dm/name", f"{called}\n")
        self.write(f"sys/class/block/{below}/holders/{name}")
        self.write(f"sys/class/block/{name}/slaves/{below}")

    def _link(self, path, target):
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(self.root / target)

    def ask(self, argv):
        self.asked.append(list(argv))
        if argv[0] == "lsblk":
            return {"blockdevices": self.rows}
        return {"signatures": self.signatures.get(argv[-1], [])}

    def disks(self, boots=None, running=frozenset()):
        return disks(self.root, self.ask, boots or {}, frozenset(running))


@pytest.fixture
def fake(tmp_path):
    return Fake(tmp_path)


def found(kind, usage="filesystem", label=None, uuid=None):
    return [{"type": kind, "usage": usage, "uuid": uuid, "label": label}]


def test_a_laptop_with_windows(fake):
    guid = "11111111-2222-3333-4444-555555555555"
    fake.disk(
        "nvme0n1",
        512110190592,
        [
            {"parttype": ESP.upper(), "partuuid": guid.upper(), "partlabel": "EFI system partition"},
            {"parttype": "e3c9e316-0b5c-4db8-817d-f92df00215ae"},
            {"parttype": "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "sectors": 1 << 21, "mountpoints": ["/mnt"]},
            {"parttype": "de94bba4-06d1-4d40-a16a-bfd50179d6ac"},
        ],
        model="SAMSUNG MZVL2512HCJQ-00B00   ",
        serial=" S675NF0R ",
        tran="nvme",
    )
    fake.signatures = {
        "/dev/nvme0n1p1": found("vfat", uuid="6A1F-22B3"),
        "/dev/nvme0n1p3": found("ntfs", uuid="01D9A7B2C3D4E5F6", label="OS"),
        "/dev/nvme0n1p4": found("ntfs"),
    }
    (disk,) = fake.disks({guid: "Windows Boot Manager"})
    assert (disk.model, disk.serial, disk.bus, disk.table) == ("SAMSUNG MZVL2512HCJQ-00B00", "S675NF0R", "nvme", "gpt")
    assert [part.os for part in disk.partitions] == [
        "EFI: Windows Boot Manager", "reserved by Windows", "Windows (NTFS)", "recovery of Windows",
    ]  # fmt: skip
    assert disk.partitions[0].type == ESP and disk.partitions[0].uuid == guid
    third = disk.partitions[2]
    assert (third.number, third.start, third.size) == (3, 3 * MIB, 1 << 30)
    assert (third.filesystem, third.fs_uuid, third.fs_label, third.mounted) == (
        "ntfs",
        "01D9A7B2C3D4E5F6",
        "OS",
        "/mnt",
    )


def test_what_is_built_on_a_disk_all_the_way_up(fake):
    fake.disk("sda", 10**12, [{}, {}])
    fake.holder("sda2", "md127")
    fake.holder("md127", "dm-0", "md_crypt")
    fake.holder("dm-0", "dm-1", "vg-root")
    fake.signatures = {"/dev/sda2": found("linux_raid_member", "raid", "nas:0", "abc")}
    (disk,) = fake.disks()
    assert disk.holders == ["md127", "md_crypt", "vg-root"]
    assert (disk.partitions[1].holds, disk.partitions[1].fs_label) == ("raid", "nas:0")


def test_the_running_system_is_found_however_deep_it_lies(fake):
    fake.disk("sda", 10**12, [{}, {}])
    fake.disk("sdb", 10**12)
    fake.holder("sda2", "dm-0", "root")
    assert under(fake.root, "dm-0") == under(fake.root, "sda1") == under(fake.root, "sda") == {"sda"}
    assert under(fake.root, "loop7") == frozenset()
    assert [disk.medium for disk in fake.disks(running={"sda"})] == [True, False]


def test_names_that_stay(fake):
    fake.disk("sda", 10**12)
    fake.write("dev/sda")
    for link in ("by-id/ata-X_1", "by-id/wwn-0x5", "by-path/pci-0000:00:1f.2-ata-1"):
        fake._link(f"dev/disk/{link}", "dev/sda")
    assert fake.disks()[0].by_id == ["ata-X_1", "wwn-0x5", "pci-0000:00:1f.2-ata-1"]


@pytest.mark.parametrize(
    ("name", "row", "bus"),
    [
        ("nvme0n1", {"tran": "nvme"}, "nvme"),
        ("sda", {"tran": "usb", "rm": True}, "usb"),
        ("sda", {"tran": "sas"}, "scsi"),
        ("sda", {"tran": "ata"}, "sata"),
        ("sda", {}, "scsi"),  # virtio-scsi says nothing
        ("vda", {}, "virtio"),
        ("mmcblk0", {}, "mmc"),
        ("xvda", {}, ""),
    ],
)
def test_the_bus(fake, name, row, bus):
    fake.disk(name, 10**12, **row)
    assert fake.disks()[0].bus == bus


@pytest.mark.parametrize("name", ["zram0", "nbd0", "mmcblk0boot0", "mmcblk1rpmb", "ram3"])
def test_what_is_no_disk_is_none(fake, name):
    fake.disk(name, 10**12)
    fake.disk("sr0", 10**9, type="rom")
    fake.rows[-1]["type"] = "rom"
    assert fake.disks() == []


def test_what_a_disk_says_of_itself_does_not_reach_a_screen_as_it_is(fake):
    fake.disk("sda", 10**12, model="EVIL\x1b[2J  DISK", serial="1\n2\x00")
    assert (fake.disks()[0].model, fake.disks()[0].serial) == ("EVIL [2J DISK", "1 2")


def test_a_disk_with_sectors_of_4096_and_one_with_a_journal(fake):
    fake.disk("sda", 10**12, **{"log-sec": 4096})
    fake.disk("sdb", 10**12, [{"partlabel": "kos-esp", "parttype": ESP}, {"partlabel": "kos-journal"}])
    first, second = fake.disks()
    assert (first.sector, first.journal, second.sector, second.journal) == (4096, False, 512, True)
    assert [part.os for part in second.partitions] == ["kOS (kos-esp)", "kOS (kos-journal)"]


def test_a_disk_that_was_installed_tells_by_which_answers(fake):
    asked = Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}})
    kind = names.TYPES["journal"]
    fake.disk("sda", 10**12, [{"partlabel": "kos-journal", "parttype": kind}])
    device = fake.root / "dev/sda1"
    device.parent.mkdir(parents=True, exist_ok=True)
    device.write_bytes(bytes(1 << 20))
    begun = journal.begin(device, Plan(actions=[Unpack(id="unpack")]), asked)
    assert fake.disks()[0].installed == ""
    journal.finish(begun)
    assert fake.disks()[0].installed == asked.digest()


@pytest.mark.parametrize(
    ("what", "unbegun"),
    [("nothing", True), ("a torn journal", True), ("a journal", False), ("a mark", False), ("an old one", False),
     ("LUKS", False), ("no device", False), ("no journal partition", False)],
)  # fmt: skip
def test_what_an_install_left_that_ended_before_its_journal(fake, what, unbegun):
    asked = Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}})
    kind = names.TYPES["journal"] if what != "no journal partition" else ESP
    parts = [{"partlabel": "data"}, {"partlabel": "kos-esp"}, {"partlabel": "kos-journal", "parttype": kind},
             {"partlabel": "kos-root"}]  # fmt: skip
    fake.disk("sda", 10**12, parts)
    fake.write("dev/sda1", b"somebody's")
    for number in (2, 3, 4):
        fake.write(f"dev/sda{number}", bytes(2 * MIB))
    place = fake.root / "dev/sda3"
    if what in ("a journal", "a mark", "a torn journal"):
        begun = journal.begin(place, Plan(actions=[Unpack(id="unpack")]), asked)
    if what == "a mark":
        journal.finish(begun)
    elif what == "a torn journal":
        content = bytearray(place.read_bytes())
        content[100] ^= 1
        place.write_bytes(content)
    elif what == "LUKS":
        fake.write("dev/sda4", b"LUKS" + bytes(MIB))
    elif what == "an old one":
        fake.write("dev/sda2", bytes(MIB - 1) + b"x")
    elif what == "no device":
        (fake.root / "dev/sda4").unlink()
    assert fake.disks()[0].unbegun == unbegun


def test_a_serial_number_is_the_same_in_the_plan_and_when_it_is_carried_out(fake):
    fake.disk("sda", 10**12, serial="  S1\x00\tX\ufffd\x7f ")
    row = {**fake.rows[0], "fstype": None, "uuid": None}
    assert fake.disks()[0].serial == applied._node(row).serial == "S1  X\ufffd"


def test_a_disk_without_a_table_holds_something_as_a_whole(fake):
    fake.disk("sda", 10**12)
    fake.disk("sdb", 0, rm=True)
    fake.signatures = {"/dev/sda": found("crypto_LUKS", "crypto", uuid="u")}
    first, second = fake.disks()
    assert (first.holds, first.fs_uuid, first.table) == ("luks", "u", "")
    assert second.size == 0 and ["wipefs", "--json", "--output", "TYPE,USAGE,UUID,LABEL", "/dev/sdb"] not in fake.asked


@pytest.mark.parametrize(
    ("kind", "usage", "holds"),
    [
        ("crypto_LUKS", "crypto", "luks"), ("BitLocker", "crypto", "bitlocker"), ("LVM2_member", "raid", "lvm"),
        ("linux_raid_member", "raid", "raid"), ("isw_raid_member", "raid", "raid"), ("ddf_raid_member", "raid", "raid"),
        ("zfs_member", "filesystem", "zfs"), ("swap", "other", "swap"), ("bcache", "other", "bcache"),
        ("ext4", "filesystem", "filesystem"), ("gpt", "partition-table", ""),
    ],
)  # fmt: skip
def test_what_a_signature_makes_of_it(kind, usage, holds):
    assert signature("/dev/x", lambda _argv: {"signatures": found(kind, usage)}).holds == holds


def test_of_several_signatures_the_outermost_counts():
    """Complaint 1: an old file system may shine through."""
    rows = [*found("ext4"), *found("crypto_LUKS", "crypto", uuid="u")]
    assert signature("/dev/x", lambda _argv: {"signatures": rows}) == Signature("crypto_LUKS", "u", "")
    assert signature("/dev/x", lambda _argv: None) == Signature()


@pytest.mark.parametrize(
    ("kind", "what", "label", "said"),
    [
        ("", "ext4", "", "Linux (ext4)"),
        ("", "btrfs", "", "Linux (btrfs)"),
        ("", "apfs", "", "macOS (apfs)"),
        ("", "BitLocker", "", "Windows (BitLocker)"),
        ("", "vfat", "", ""),
        ("", "crypto_LUKS", "kos-root", "kOS (kos-root)"),
        (ESP, "vfat", "", "EFI system partition"),
    ],
)
def test_what_is_installed_there(kind, what, label, said):
    assert system(kind, Signature(what), label) == said


def test_signatures_of_real_content(tmp_path):
    """With the programs themselves, on files in place of disks."""
    swap, empty = tmp_path / "swap", tmp_path / "empty"
    for path in (swap, empty):
        path.write_bytes(bytes(MIB))
    subprocess.run(["/usr/sbin/mkswap", "-L", "old", swap], check=True, capture_output=True)
    assert signature(str(swap), reading.ask).holds == "swap" and signature(str(swap), reading.ask).label == "old"
    assert signature(str(empty), reading.ask) == Signature() == signature(str(tmp_path / "none"), reading.ask)


# Firmware. ---------------------------------------------------------------------------------------------------------


def variable(fake, name, value):
    fake.write(f"sys/firmware/efi/efivars/{name}-{GLOBAL}", b"\x06\0\0\0" + value)


def entry(name, partition=None):
    """A boot entry as firmware keeps it: UEFI Specification 3.1.3 and 10.3.5.1."""
    node = b""
    if partition:
        node = struct.pack("<BBHIQQ", 4, 1, 42, 1, 2048, 204800) + uuid.UUID(partition).bytes_le + b"\x02\x02"
    file = "\\EFI\\X.EFI\0".encode("utf-16-le")
    path = node + struct.pack("<BBH", 4, 4, 4 + len(file)) + file + b"\x7f\xff\x04\0"
    return struct.pack("<IH", 1, len(path)) + f"{name}\0".encode("utf-16-le") + path + b"optional"


@pytest.mark.parametrize(
    ("variables", "state"),
    [
        ({}, "off"),
        ({"SecureBoot": b"\0"}, "off"),
        ({"SecureBoot": b"\1", "SetupMode": b"\0"}, "on"),
        ({"SecureBoot": b"\0", "SetupMode": b"\1"}, "setup"),
    ],
)
def test_secure_boot(fake, variables, state):
    assert firmware.firmware(fake.root) == "bios"
    (fake.root / "sys/firmware/efi").mkdir(parents=True)
    for name, value in variables.items():
        variable(fake, name, value)
    assert (firmware.firmware(fake.root), firmware.secure_boot(fake.root)) == ("uefi", state)


def test_what_the_firmware_starts(fake):
    one, two = (str(uuid.UUID(int=number)) for number in (7, 8))
    variable(fake, "Boot0000", entry("Windows Boot Manager", one))
    variable(fake, "Boot0001", entry("UEFI PXE"))
    variable(fake, "Boot000A", entry("ubuntu", two))
    variable(fake, "Boot000B", entry("debian", two))
    variable(fake, "Boot000C", entry("debian", two))
    variable(fake, "BootOrder", b"\0\0")
    assert firmware.boots(fake.root) == {one: "Windows Boot Manager", two: "ubuntu, debian"}


@pytest.mark.parametrize("cut", range(0, 90, 3))
def test_a_broken_boot_entry_is_none(fake, cut):
    variable(fake, "Boot0000", entry("X", str(uuid.UUID(int=7)))[:cut])
    assert set(firmware.boots(fake.root)) <= {str(uuid.UUID(int=7))}


def test_a_boot_entry_with_nodes_of_no_length_ends(fake):
    variable(fake, "Boot0000", struct.pack("<IH", 1, 400) + "X\0".encode("utf-16-le") + bytes(400))
    assert firmware.boots(fake.root) == {}


def test_chips_and_keys(fake):
    assert not firmware.tpm2(fake.root) and not firmware.fido2(fake.root)
    fake.write("sys/class/tpm/tpm0/tpm_version_major", "2\n")
    fake.write("sys/class/hidraw/hidraw0/device/report_descriptor", b"\x05\x01\x09\x06")
    assert firmware.tpm2(fake.root) and not firmware.fido2(fake.root)
    fake.write("sys/class/hidraw/hidraw1/device/report_descriptor", b"\x06\xd0\xf1\x09\x01")
    assert firmware.fido2(fake.root)
    fake.write("sys/class/tpm/tpm0/tpm_version_major", "1\n")
    assert not firmware.tpm2(fake.root)


def test_network_cards(fake):
    fake.write("sys/class/net/lo/address", "00:00:00:00:00:00")
    fake.write("sys/class/net/enp1s0/address", "52:54:00:12:34:56\n")
    fake.write("sys/class/net/enp1s0/carrier", "1\n")
    fake.write("sys/bus/drivers/e1000e/bind")
    (fake.root / "sys/class/net/enp1s0/device").mkdir()
    (fake.root / "sys/class/net/enp1s0/device/driver").symlink_to(fake.root / "sys/bus/drivers/e1000e")
    fake.write("sys/class/net/wlp2s0/phy80211/name", "phy0")
    fake.write("sys/class/net/wlp2s0/device/vendor", "0x8086")
    wired, wireless = detect.nics(fake.root)
    assert (wired.name, wired.mac, wired.carrier, wired.driver, wired.wireless) == (
        "enp1s0", "52:54:00:12:34:56", True, "e1000e", False,
    )  # fmt: skip
    assert (wireless.name, wireless.wireless, wireless.carrier) == ("wlp2s0", True, False)


def test_a_whole_machine_survives_being_written_down(fake):
    fake.disk("vda", 10**12, serial="abc")
    fake.write("sys/class/dmi/id/sys_vendor", "LENOVO\n")
    fake.write("sys/class/dmi/id/product_name", "21HM\n")
    here = detect.detect(fake.root, fake.ask)
    assert here.name == "LENOVO 21HM" and here.disks[0].serial == "abc" and here.memory_mb > 0
    assert Machine.model_validate(json.loads(here.model_dump_json())) == here


def test_a_machine_on_which_nothing_can_be_read(fake):
    here = detect.detect(fake.root, lambda _argv: None)
    assert here.disks == [] and here.nics == [] and here.firmware == "bios"


def test_this_machine_too():
    """Whatever it is: the disk that it runs from is not offered."""
    here = detect.detect()
    assert here.cpu > 0
    mounted = [disk for disk in here.disks if any(part.mounted == "/" for part in disk.partitions)]
    assert all(disk.medium for disk in mounted)
