# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two disks of a mirror as the installer plans it: its UUIDs, its kernel arguments, its fstab; made without it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import slotdisks
from slotdisks import HEADER_MIB, MIB, Parts

from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import layout
from kos_image.toolbox import Toolbox
from kos_install.actions import boot, mounts, target
from kos_install.actions.target import File
from kos_install.answers import Answers
from kos_install.hardware.model import Disk, Machine
from kos_install.storage.actions import Btrfs, Fat, Luks, Plan
from kos_install.storage.plan import plan

ROOT_MIB = 2000
SERIALS = ("HALF-1", "HALF-2")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP nobody"
# What an emulated machine needs beside the installer's own; a start waits that long for the ESP of a missing disk.
_MORE = ("quiet", "console=ttyS0", "systemd.default_device_timeout_sec=120")
# SYSTEM FOLDER UUID SIZE ONE TWO: a mirror of two files, with a subvolume for each place, the longest path first.
_FILLING = """
mount --bind "$2" "$1/mnt"
mount --bind /proc "$1/proc"
chroot "$1" mkfs.btrfs -q -L kos-root -U "$3" -d raid1 -m raid1 --byte-count "$4" "/mnt/$5" "/mnt/$6"
umount "$1/mnt" "$1/proc"
one=$(losetup --find --show "$2/$5")
two=$(losetup --find --show "$2/$6")
trap 'losetup --detach "$one" "$two"' EXIT
mount -t btrfs -o "device=$one,device=$two" "$one" "$1/mnt"
for pair in @log:var/log @home:home @var:var @root.1:.; do
  chroot "$1" btrfs subvolume create "/mnt/${pair%%:*}"
  cp -ax "$1/${pair#*:}/." "$1/mnt/${pair%%:*}"
  [ "${pair#*:}" = . ] || find "$1/${pair#*:}" -mindepth 1 -delete
done
umount "$1/mnt"
"""


def planned() -> Plan:
    """The installer's plan for a machine with two equal disks."""
    disks = [
        Disk(path=f"/dev/vd{letter}", size=12 << 30, serial=serial)
        for letter, serial in zip("ab", SERIALS, strict=True)
    ]
    one, two = ({"serial": serial} for serial in SERIALS)
    storage = {"layout": "mirror", "disk": one, "second": two}
    answers = Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}, "storage": storage})
    return plan(answers, Machine(disks=disks, memory_mb=2048))


def make(parts: Parts, folder: Path, drive: str) -> list[Path]:
    """The two disks, whose system runs the script `drive`."""
    wanted, system, toolbox = planned(), folder / "system", Toolbox(parts.toolbox, 0)
    system.mkdir()
    subprocess.run(["tar", "--extract", "--file", parts.root, "--directory", system], check=True)
    slotdisks._install(system, parts)
    slotdisks._prepare(system, parts, "", drive, {1: {"usr/share/kos-probe/version": "1\n"}})
    arguments = " ".join([*mounts.arguments(wanted), *layout.RESTARTING, *_MORE])
    (system / "efi-2").mkdir()
    target.lay(Root(str(system)), [*mounts.entries(wanted), File(boot.ARGUMENTS, f"{arguments}\n")])
    esp = folder / "esp"
    slotdisks._boot(system, esp, arguments)
    images = [folder / f"half-{number}.raw" for number in (1, 2)]
    _fill(system, wanted, images)
    shutil.rmtree(system)
    luks = [one for one in wanted.actions if isinstance(one, Luks)]
    fats = [one for one in wanted.actions if isinstance(one, Fat)]
    disks = []
    for image, opened, fat in zip(images, luks, fats, strict=True):
        slotdisks._encrypt(image, opened.uuid, toolbox)
        disks.append(slotdisks._assemble(image, esp, toolbox, folder / f"disk-{len(disks) + 1}.raw", fat.volume_id))
    return disks


def _fill(system: Path, wanted: Plan, images: list[Path]) -> None:
    for image in images:
        with image.open("wb") as stream:
            stream.truncate(ROOT_MIB * MIB)
    (uuid,) = [one.uuid for one in wanted.actions if isinstance(one, Btrfs)]
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _FILLING, "sh"]
    argv = [*apart, system, images[0].parent, uuid, str((ROOT_MIB - HEADER_MIB) * MIB), *(one.name for one in images)]
    subprocess.run(argv, check=True, capture_output=True)
