# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installer's actions on real block devices, with a real kernel: one machine is booted, all of it happens there."""

from __future__ import annotations

import hashlib
import json
import os

import crashtable
import diskmachine
import diskplans
import mediums
import pytest
from diskplans import GIB, MIB

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=mediums.unavailable() or "a lab is here"),
]

ONE = diskplans.target("/dev/vdc", "DISK-1", 9 * GIB)
TWO = diskplans.target("/dev/vdd", "DISK-2", 9 * GIB)
SMALL = diskplans.target("/dev/vde", "SMALL", 224 * MIB)
ESP = 64 * MIB
# Takes down whatever a test left on the disks for tests, so that the next one begins with what it makes.
TIDY = """
umount -R /run/kos/target /mnt; swapoff -a; vgchange -qan; mdadm --stop --scan
for name in $(dmsetup ls | cut -f1 | grep -v ^No); do cryptsetup close $name || dmsetup remove $name; done
for disk in vdc vdd vde; do
  wipefs -qaf /dev/$disk?; wipefs -qaf /dev/$disk; dd if=/dev/zero of=/dev/$disk bs=1M count=20 status=none
  blockdev --rereadpt /dev/$disk
done 2>/dev/null
udevadm settle
"""


class Bench:
    """The machine, and what is done on it again and again."""

    def __init__(self, machine, files):
        self.machine, self.files = machine, files
        self.run = machine.run

    def apply(self, actions, check=True, **more):
        """Carry out a plan; what was told, as (events, exit code)."""
        events, said, code = self.machine.apply(diskplans.asked(actions, **more))
        if check and code:
            pytest.fail(f"{code}:\n{said[-4000:]}")
        return events, code

    def fails(self, actions, **more):
        """The sentence of a plan that cannot be carried out."""
        events, code = self.apply(actions, check=False, **more)
        assert code == 3, events[-5:]
        return events[-1][1]

    def signatures(self, *devices):
        """What is recognized on devices."""
        return self.run(f"wipefs --no-act --noheadings --parsable {' '.join(devices)}").strip()

    def holds(self, secret):
        """The disks that have these bytes anywhere, as the host sees them."""
        self.run("sync")
        return [file.name for file in self.files if holds(file, secret)]

    def content(self, disk, start=0, size=64 * MIB):
        """The digest of what a disk holds there, as the host sees it: an emulated machine needs minutes for it."""
        self.run("sync")
        [file] = [one for one in self.files if one.name == disk]
        with file.open("rb") as stream:
            return hashlib.sha256(os.pread(stream.fileno(), size, start)).hexdigest()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    media, folder = mediums.Media(f"disks{os.getpid()}"), tmp_path_factory.mktemp("disks")
    image = diskmachine.system_image(diskmachine.ensure(media.lab, media.apt), folder / "image")
    disks = [diskmachine.Disk(folder / one["serial"], one["serial"], one["size"]) for one in (ONE, TWO, SMALL)]
    # Two that cannot be told apart, as cheap adapters are.
    disks += [diskmachine.Disk(folder / f"twin{number}", "TWIN", GIB) for number in (1, 2)]
    with diskmachine.booted(media.lab, media.apt, [*disks, diskmachine.Disk(image, "image")]) as machine:
        machine.run("mkdir -p /usr/lib/kos/installed; cp -L /initrd.img /usr/lib/kos/installed/initrd")
        yield Bench(machine, [disk.file for disk in disks])


@pytest.fixture(autouse=True)
def tidy(request):
    if "bench" in request.fixturenames:
        request.getfixturevalue("bench").run(TIDY, check=False)


def holds(file, word):
    """Whether a sparse file has these bytes."""
    with file.open("rb") as stream:
        end, before = 0, b""
        size = file.stat().st_size
        while True:
            try:
                start = os.lseek(stream.fileno(), end, os.SEEK_DATA)
            except OSError:
                return False
            end = min(os.lseek(stream.fileno(), start, os.SEEK_HOLE), start + 64 * MIB, size)
            content = before + os.pread(stream.fileno(), end - start, start)
            if word in content:
                return True
            before = content[-len(word) :]


def up_to(actions, last):
    """The actions of a plan up to one."""
    return actions[: [one["id"] for one in actions].index(last) + 1]


DIRT = {
    "LUKS on the disk, open and mounted": """
        echo -n old | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/vdc -
        echo -n old | cryptsetup open --key-file=- /dev/vdc old; mkfs.ext4 -q /dev/mapper/old
        mount /dev/mapper/old /mnt; touch /mnt/file; mkdir /mnt/below; mount -t tmpfs none /mnt/below""",
    "LUKS in a partition, with LVM and swap in it": """
        echo 'start=1MiB,size=1GiB' | sfdisk -q --label gpt /dev/vdc; udevadm settle
        echo -n old | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/vdc1 -
        echo -n old | cryptsetup open --key-file=- /dev/vdc1 old; pvcreate -q /dev/mapper/old
        vgcreate -q vg /dev/mapper/old; lvcreate -qy -L 100M -n swap vg; mkswap /dev/vg/swap; swapon /dev/vg/swap
        lvcreate -qy -L 200M -n root vg; mkfs.ext4 -q /dev/vg/root; mount /dev/vg/root /mnt""",
    "a RAID of two disks, running": """
        for disk in vdc vdd; do echo 'start=1MiB,size=512MiB' | sfdisk -q --label gpt /dev/$disk; done; udevadm settle
        mdadm -q --create /dev/md0 --run --level 1 --raid-devices 2 --metadata 1.2 /dev/vdc1 /dev/vdd1 </dev/null
        mkfs.ext4 -q /dev/md0; mount /dev/md0 /mnt""",
    "a RAID whose superblock is at the end of the disk": """
        mdadm -q --create /dev/md0 --run --level 1 --raid-devices 2 --metadata 1.0 /dev/vdc missing </dev/null
        mkfs.ext4 -q /dev/md0""",
    "LVM over the whole disk": """
        pvcreate -q /dev/vdc; vgcreate -q old /dev/vdc; lvcreate -qy -L 100M -n data old; mkfs.ext4 -q /dev/old/data
        mount /dev/old/data /mnt""",
    "a btrfs of two disks, mounted by the name of the other": """
        mkfs.btrfs -qf -d raid1 -m raid1 /dev/vdd /dev/vdc; udevadm settle; mount /dev/vdd /mnt""",
    "an MBR, with Windows' file system in it": """
        echo 'start=1MiB,type=7' | sfdisk -q --label dos /dev/vdc; udevadm settle
        printf '\\353R\\220NTFS    ' | dd of=/dev/vdc1 status=none""",
}


@pytest.mark.parametrize("dirt", DIRT)
def test_whatever_was_on_a_disk_is_let_go_and_gone(bench, dirt):
    """Complaints 1 and 11: a disk with LUKS, LVM or RAID on it; the system that installs is running already."""
    bench.run(f"set -e\n{DIRT[dirt]}")
    assert bench.signatures("$(ls /dev/vdc*)")
    bench.apply(up_to(diskplans.whole(ONE, esp=ESP), "journal"))
    # Nor does anybody find it again.
    bench.run("udevadm trigger --settle; mdadm --assemble --scan; vgscan -q; udevadm settle", check=False)
    assert bench.run("lsblk --noheadings --raw --output TYPE /dev/vdc").split() == ["disk"]
    assert "No errors detected" in bench.run("sfdisk --verify /dev/vdc 2>&1")
    kept = [row.split(",")[-1] for row in bench.signatures("/dev/vdc").splitlines()]
    assert set(kept) <= {"gpt", "PMBR"}, kept
    left = bench.run("lsblk --noheadings --list --output TYPE,MOUNTPOINTS /dev/vdc").split()
    assert left == ["disk", "part", "part", "part"]


def test_labels_of_zfs_at_both_ends_are_gone(bench):
    """Four of them, of which no tool of the medium knows all."""
    bench.run("python3 tests/e2e/diskapply.py --zfs /dev/vdc")
    assert bench.holds(diskplans.UBERBLOCK) == ["DISK-1"]
    bench.apply(up_to(diskplans.whole(ONE, esp=ESP), "journal"))
    assert not bench.holds(diskplans.UBERBLOCK)


OTHERS = """
sfdisk -q /dev/vdd; udevadm settle; mkfs.vfat -F 32 /dev/vdd1 >/dev/null; mkfs.ext4 -q /dev/vdd7
head -c 67108864 /dev/urandom >/dev/vdd3; sync
"""
KEPT = diskplans.kept()
ENTRIES = "sfdisk --dump /dev/vdd | grep -E 'vdd[137] '"


def beside(kept):
    """A plan for the gap between these."""
    return diskplans.beside(TWO, kept)


def test_what_is_preserved_does_not_change_by_a_bit(bench):
    bench.run(f"set -e\n{OTHERS}", diskplans.others())
    before = [bench.content("DISK-2", one["start"], one["size"]) for one in KEPT]
    entries = bench.run(ENTRIES)
    bench.apply(beside(KEPT))
    assert [bench.content("DISK-2", one["start"], one["size"]) for one in KEPT] == before
    assert bench.run(ENTRIES) == entries
    assert "No errors detected" in bench.run("sfdisk --verify /dev/vdd 2>&1")
    # As is a table that is refused because it is not the one that the plan was made for.
    table, first = bench.content("DISK-2", 0, MIB), KEPT[0]
    for changed in (
        [{**first, "start": first["start"] + MIB}, *KEPT[1:]],
        [{**first, "uuid": "99999999-9999-4999-8999-999999999999"}, *KEPT[1:]],
        KEPT[1:],
        KEPT,
    ):
        assert "not as it was when the plan was made" in bench.fails(beside(changed), fresh=True)
        assert bench.content("DISK-2", 0, MIB) == table


def test_an_install_beside_others_that_is_given_up_leaves_room_for_the_next_one(bench):
    bench.run(f"set -e\n{OTHERS}", diskplans.others())
    before = [bench.content("DISK-2", one["start"], one["size"]) for one in KEPT]
    bench.apply(beside(KEPT), check=False, kill=["unpack", "started"])
    bench.run("python3 tests/e2e/diskapply.py --abandon")
    assert bench.run("lsblk --noheadings --raw --output PARTN /dev/vdd").split() == ["1", "3", "7"]
    assert [bench.content("DISK-2", one["start"], one["size"]) for one in KEPT] == before
    events, _ = bench.apply(beside(KEPT))
    assert not [event for event in events if event[-1] == "skipped"]


def test_partitions_that_would_lie_over_others_are_not_made(bench):
    bench.run(f"set -e\n{OTHERS}", diskplans.others())
    before = bench.content("DISK-2", 0, 200 * MIB), bench.run("sfdisk --dump /dev/vdd")
    plan = beside(KEPT)
    plan[0]["make"][2]["size"] += 64 * MIB
    assert "sfdisk" in bench.fails(plan)
    assert (bench.content("DISK-2", 0, 200 * MIB), bench.run("sfdisk --dump /dev/vdd")) == before


@pytest.mark.parametrize(
    ("disk", "sentence"),
    [
        ({**ONE, "serial": "ANOTHER"}, "is not there any more"),
        ({**ONE, "size": ONE["size"] + 512}, "another disk took its place"),
        (diskplans.target("/dev/vdf", "TWIN", GIB), "is there 2 times"),
    ],
)
def test_a_disk_that_is_not_the_planned_one_is_not_written_to(bench, disk, sentence):
    everything = ("DISK-1", "twin1", "twin2")
    before = [bench.content(one) for one in everything]
    assert sentence in bench.fails(diskplans.whole(disk, esp=ESP))
    assert [bench.content(one) for one in everything] == before


def test_a_disk_is_found_by_its_serial_number_though_its_name_has_changed(bench):
    bench.apply(up_to(diskplans.whole({**ONE, "path": "/dev/vdd"}, esp=ESP), "journal"))
    assert bench.run("lsblk --noheadings --list --output PARTLABEL /dev/vdc").split() == [
        diskplans.names.ESP, diskplans.names.JOURNAL, diskplans.names.ROOT,
    ]  # fmt: skip
    assert bench.signatures("/dev/vdd") == ""


def test_only_one_install_at_a_time(bench):
    plan = diskplans.whole(ONE, esp=ESP)
    assert "another install is at work" in bench.fails(plan, **{"beside another": True})


def test_a_disk_without_room_ends_in_a_sentence_and_holds_nothing(bench):
    # Beside the subvolumes: what is in them is removed before.
    top = "mount -o subvolid=5 /dev/mapper/kos-root /mnt"
    fill = f"{top}; cat /dev/urandom >/mnt/fill || true; umount /mnt"
    events, code = bench.apply(diskplans.whole(SMALL, esp=ESP), check=False, before={"unpack": fill})
    assert code == 3
    assert "space" in events[-1][1].lower(), events[-1]
    assert "/run/kos/target" not in bench.run("findmnt --list --noheadings --output TARGET")
    assert "kos-root" not in bench.run("ls /dev/mapper")


def test_a_killed_install_goes_on_wherever_it_was_killed(bench):
    """Complaint 12: SIGKILL at every step, each time in the install that the last one left; it ends as asked."""
    plan = diskplans.startable(ONE, esp=ESP)
    places = [(one["id"], state) for one in plan for state in ("started", "done")][:-1]
    places.insert(places.index(("unpack", "done")), ("unpack", "progress"))
    for place in crashtable.sample(places, 5, "disks"):
        with crashtable.row("an install", " ".join(place)) as line:
            events, code = bench.apply(plan, check=False, kill=list(place))
            assert code == -9, events[-3:]
            line["by"] = "resumed"
    events, _ = bench.apply(plan)
    done = [event[1] for event in events if event[0] == "action" and event[2] in ("done", "skipped")]
    assert done == [one["id"] for one in plan]
    assert not [event for event in events if event[0] == "log" and event[1].startswith("WRONG")]


def test_another_passphrase_does_not_resume_and_the_first_does(bench):
    plan = up_to(diskplans.whole(ONE, esp=ESP), "fat")
    bench.apply(plan, check=False, kill=["btrfs", "started"])
    assert "does not open what was begun" in bench.fails(plan, secrets={"passphrase": "another"})
    events, _ = bench.apply(plan)
    assert ["action", "luks-kos-root", "skipped"] in events


def test_a_resumed_install_has_a_recovery_key_that_somebody_saw(bench):
    """The first one was shown to nobody who is sure to have it: it opens nothing any more."""
    plan = up_to(diskplans.whole(ONE, esp=ESP), "fat")
    events, _ = bench.apply(plan, check=False, kill=["btrfs", "done"])
    [first] = [event[1] for event in events if event[0] == "recovery_key"]
    events, _ = bench.apply(plan)
    [second] = [event[1] for event in events if event[0] == "recovery_key"]
    test = "cryptsetup open --test-passphrase --key-file=- /dev/vdc3"
    assert bench.run(test, first, check=False)[1] != 0
    assert bench.run(test, second, check=False)[1] == 0
    assert bench.run('cryptsetup luksDump --dump-json-metadata /dev/vdc3 | grep -c \'"type":"luks2"\'').strip() == "2"


def test_a_disk_that_somebody_changed_in_between_is_not_resumed(bench):
    plan = up_to(diskplans.whole(ONE, esp=ESP), "fat")
    bench.apply(plan, check=False, kill=["btrfs", "started"])
    bench.run("sfdisk -q --part-uuid /dev/vdc 1 99999999-9999-4999-8999-999999999999; udevadm settle")
    assert "somebody changed it since" in bench.fails(plan)


def test_an_install_that_is_given_up_cannot_be_opened_nor_resumed(bench):
    plan = diskplans.whole(ONE, esp=ESP)
    bench.apply(plan, check=False, kill=["unpack", "started"])
    bench.run("python3 tests/e2e/diskapply.py --abandon")
    assert bench.run("lsblk --noheadings --raw --output TYPE /dev/vdc").split() == ["disk"]
    assert "No errors detected" in bench.run("sfdisk --verify /dev/vdc 2>&1")
    events, _ = bench.apply(up_to(plan, "fat"))
    assert not [event for event in events if event[-1] == "skipped"]


TAMPERING = {
    "has no key but those": "cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "
    "--key-file=- /dev/vdc3 /etc/hostname",
    "kos/1/initrd is the initrd": "printf x | "
    "dd of=/run/kos/target/efi/kos/1/initrd bs=1 seek=9 conv=notrunc status=none",
    "fstab names what is there": "echo UUID=strange /mnt ext4 0 0 >>/run/kos/target/etc/fstab",
    "crypttab opens what is there": "echo other UUID=strange none >>/run/kos/target/etc/crypttab",
    "the initrd is told to open": "sed -i s/rd.luks.name/rd.luks.nome/ /run/kos/target/etc/kernel/cmdline",
    "no secret is on the partition": "cat >/run/kos/target/efi/note",
    "no secret is in what was written": "cat >/run/kos/target/root/note",
}


@pytest.mark.parametrize("wrong", TAMPERING)
def test_what_is_not_as_asked_does_not_become_bootable(bench, wrong):
    """Complaint 21: no success is told over what is not there."""
    bench.run("echo name >/etc/hostname")
    said = bench.fails(diskplans.startable(ONE, esp=ESP), before={"verify": TAMPERING[wrong]})
    assert said.startswith("the disk is not as it was asked for")
    assert wrong in said
    bench.run("mount -o ro /dev/vdc1 /mnt")
    assert bench.run("head -c 2 /mnt/EFI/BOOT/BOOTX64.EFI") == "#Z"


def test_no_secret_is_ever_where_somebody_could_read_it(bench):
    """The passphrase and the recovery key: in no argument list, environment, event or file; nowhere on the disk."""
    bench.run("python3 tests/e2e/diskapply.py --watch /run/watched >/dev/null 2>&1 & sleep 2")
    events, _ = bench.apply(diskplans.startable(ONE, esp=ESP))
    seen = bench.run("rm /run/watched.going; sleep 2; cat /run/watched")
    assert "luksFormat" in seen
    [recovery] = [event[1] for event in events if event[0] == "recovery_key"]
    told = json.dumps([event for event in events if event[0] != "recovery_key"])
    for secret in (diskplans.PASSPHRASE, recovery):
        assert secret not in seen
        assert secret not in told
        search = "LC_ALL=C grep --text --fixed-strings --file=-"
        where = "/run/kos /run/udev /tmp /var /etc /root"
        assert bench.run(f"{search} --recursive --files-with-matches {where} || true", secret).strip() == ""
        assert not bench.holds(secret.encode())


@pytest.mark.parametrize(
    "storage",
    [
        {"layout": "mirror", "disk": {"serial": "DISK-1"}, "second": {"serial": "DISK-2"}},
        {"layout": "whole_disk", "disk": {"serial": "DISK-1"}, "data": {"serial": "DISK-2"}},
    ],
    ids=["mirror", "data"],
)
def test_what_the_planner_plans_for_this_machine_is_carried_out(bench, storage):
    """The machine is detected, its plan made and carried out up to the unpacked system."""
    events, _ = bench.apply([], storage=storage)
    assert ["action", "unpack", "done"] in events
