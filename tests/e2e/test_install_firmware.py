# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of the planner, carried out to their last step on a machine with UEFI; then its firmware starts the disks.

What is installed is a small system, whose own initrd opens no disk: that its kernel is started, with the arguments of
the plan, is the end. Neither is it configured (its mount tables alone are laid), nor does a playbook run. All of that a
whole stick does in `test_install.py`, and what a mirror's halves do then is in `test_install_mirror.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil

import diskmachine
import diskplans
import mediums
import neighbours
import pytest
from diskplans import GIB

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=mediums.unavailable() or "a lab is here"),
]

# Of an emulated start, on a busy machine.
PATIENCE = 1500
BESIDE, HALVES = "BESIDE", ("HALF-1", "HALF-2")
# What their installers entered in the firmware's list.
ENTERED = r"""
disk=$(readlink -f /dev/disk/by-id/virtio-BESIDE)
efibootmgr --quiet --create --disk $disk --part 1 --label debian --loader '\EFI\debian\shimx64.efi'
efibootmgr --quiet --create --disk $disk --part 1 --label 'Windows Boot Manager' \
  --loader '\EFI\Microsoft\Boot\bootmgfw.efi'
"""
# Where nobody chooses: the kernel of the node, with the arguments of the plan.
KERNEL = r"Command line: .*subvol=@root\.1.*kos\.slot=1"


class Bench:
    """A machine with UEFI and blank disks, in a folder; then those disks, each started by that very firmware."""

    def __init__(self, folder):
        self.folder, self.state = folder, folder / "state"
        self.media = mediums.Media(f"firmware{os.getpid()}")
        self.made = diskmachine.ensure(self.media.lab, self.media.apt)
        self.state.mkdir()

    def file(self, serial):
        return self.folder / serial

    @contextlib.contextmanager
    def machine(self, *serials, size=14 * GIB, uefi=True):
        """It is on, with these disks, and with what a medium brings."""
        disks = [diskmachine.Disk(self.file(one), one, size) for one in serials]
        disks.append(diskmachine.Disk(diskmachine.system_image(self.made, self.folder / "image"), "image"))
        state = self.state if uefi else None
        with diskmachine.booted(self.media.lab, self.media.apt, disks, state=state) as machine:
            machine.run("mkdir -p /usr/lib/kos/installed; cp -L /initrd.img /usr/lib/kos/installed/initrd")
            yield machine

    def started(self, serial, **how):
        """A disk alone, started by a copy of the firmware's variables as the install left them."""
        state = self.folder / f"state-{serial}"
        shutil.copytree(self.state, state, dirs_exist_ok=True)
        return self.media.booted(self.file(serial), persist=True, usb=False, state=state, **how)


@pytest.fixture
def bench(tmp_path):
    yield Bench(tmp_path)
    shutil.rmtree(tmp_path)


def installed(machine, storage):
    """Carry out the whole plan, but the playbook; what was told."""
    events, said, code = machine.apply(diskplans.asked([], storage=storage, without=["converge"]), seconds=PATIENCE)
    assert code == 0, said[-4000:]
    assert ["action", "finish", "done"] in events
    rows = [event[1] for event in events if event[0] == "log"]
    assert not [row for row in rows if row.startswith("WRONG")]
    machine.run("sync")
    return rows


def entries(machine):
    """What the firmware would start, in its order: (name, path)."""
    said = machine.run("efibootmgr").splitlines()
    (order,) = [row.split()[1].split(",") for row in said if row.startswith("BootOrder:")]
    rows = {row[4:8]: row[8:].lstrip("* ") for row in said if re.match(r"Boot[0-9A-F]{4}", row)}
    return [tuple(rows[number].split("\t", 1)) for number in order]


def test_beside_another_system_nothing_of_it_changes_and_the_menu_starts_both(bench):
    disk = bench.file(BESIDE)
    neighbours.move_in(bench.made, disk, 14 * GIB)
    before, theirs = neighbours.partitions(disk), neighbours.files(bench.made, disk)
    content = neighbours.content(disk, before)
    assert len(before) == 4 and len(theirs) == 10
    with bench.machine(BESIDE) as machine:
        machine.run(ENTERED)
        listed = entries(machine)
        installed(machine, {"layout": "free_space", "disk": {"serial": BESIDE}})
        first, *others = entries(machine)
        assert (
            first[0] == "kOS"
            and others == listed
            and {"debian", "Windows Boot Manager"} <= {name for name, _ in listed}
        )
    # The rows of the table, the partitions, the files: all that was there is as it was.
    after, now = neighbours.partitions(disk), neighbours.files(bench.made, disk)
    assert set(before) <= set(after) and neighbours.content(disk, before) == content
    assert {one.name for one in after} - {one.name for one in before} == {"kos-journal", "kos-root"}
    assert {path: now.get(path) for path in theirs} == theirs
    folders = {path.split("/")[0] + "/" + path.split("/")[1] for path in set(now) - set(theirs)}
    assert folders == {"kos/1", "EFI/kos", "loader/loader.conf", "loader/entries"}
    with bench.started(BESIDE, firmware="secure-boot") as machine:
        machine.wait(KERNEL, PATIENCE)
        machine.cut()
    with bench.started(BESIDE, firmware="secure-boot") as machine:
        # In the menu's order: the node, its recovery, then the others.
        for number, other in enumerate((neighbours.DEBIAN, neighbours.WINDOWS), 3):
            machine.wait(r'starting Boot[0-9A-F]+ "kOS"', PATIENCE)
            machine.send("h")  # any key lets the menu wait
            machine.wait("Windows Boot Manager", PATIENCE)
            machine.send(f"{number}\r")
            machine.wait(neighbours.SAYS[other], PATIENCE)
            print(f"{other} chosen, and started, after {machine.seconds():.0f} s")
        machine.cut()


@pytest.mark.parametrize("firmware", ["uefi", "bios"])
def test_either_half_of_a_mirror_has_what_starts_it(bench, firmware):
    one, two = ({"serial": serial} for serial in HALVES)
    with bench.machine(*HALVES, size=9 * GIB, uefi=firmware == "uefi") as machine:
        rows = installed(machine, {"layout": "mirror", "disk": one, "second": two})
        for place in ("/run/kos/target/efi", "/run/kos/target/efi-2"):
            assert any(row.startswith(f"ok: {place} has its boot loader") for row in rows)
        if firmware == "uefi":
            assert [name for name, _path in entries(machine)[:2]] == ["kOS", "kOS (second disk)"]
    first, second = (
        neighbours.files(bench.made, bench.file(disk), f"kos-esp{suffix}")
        for disk, suffix in zip(HALVES, ("", "-2"), strict=True)
    )
    assert first == second and "kos/1/linux" in first
    for serial in HALVES:
        with bench.started(serial, firmware=firmware) as machine:
            machine.wait(KERNEL, PATIENCE)
            print(f"{serial} alone: its kernel after {machine.seconds():.0f} s")
            machine.cut()
