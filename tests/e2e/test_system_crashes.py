# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whenever the power goes while a node switches, the one before or the new one boots, and is whole.

Several switches, of boot entries on a FAT and of generations and systems on a btrfs beside one, by Linux's own drivers,
are recorded write by write. Of every state that a power cut could leave, what systemd-boot would start is read with
mtools, and the btrfs is mounted.
"""

from __future__ import annotations

import collections
import os
import subprocess
import tempfile
from pathlib import Path

import bootloaders
import crashstates
import crashtable
import diskmachine
import diskswitch
import mediums
import nodecrashes
import pytest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=mediums.unavailable() or "a lab is here"),
]

SIZE, SWITCHES = 48 << 20, 5
STATES, SAMPLE = 1000, 200
# To mount a btrfs takes an emulated machine a second.
MOUNTED, SOME = 300, 60
PREPARE = """
mkfs.fat -F 32 -s 1 /dev/vdc >/dev/null
mkdir -p /run/esp /run/node
ln -sfn /run/code/plugins/module_utils/node /run/node/kos_node
mount -o umask=0077 /dev/vdc /run/esp
"""
SWITCH = "python3 /run/code/tests/e2e/diskswitch.py /run/node /run/esp {number}\n"
# The control: the new kernel over the old one, and the entry as it was.
IN_PLACE = """
for number in 2 3; do
python3 - $number <<'END'
import sys
sys.path.insert(0, "/run/code/tests/e2e")
import diskswitch
for name, file in (("kernel", "linux"), ("initrd", "initrd")):
    with open(f"/run/esp/kos/1/{file}", "wb") as stream:
        stream.write(diskswitch.content(name, int(sys.argv[1])))
END
sync
done
"""


def recorded(media, folder, script):
    """The log of what a script wrote to a FAT at /run/esp."""
    disk, log = folder / "disk", folder / "log"
    with diskmachine.booted(
        media.lab, media.apt, [diskmachine.Disk(disk, "ESP", SIZE, log)], memory=1024
    ) as machine:  # fmt: skip
        machine.run(PREPARE + script + "umount /run/esp; sync; sleep 1")
    return crashstates.read(log)


def first(tree, disk):
    """The number of the system that is started first, when all of it is whole; 0 where it is not, None for none.

    Each file is read by itself, as firmware does: mtools gives up a whole copy at the first one that is half written.
    """
    with tempfile.TemporaryDirectory(dir=tree / "tmp") as name:
        folder = Path(name)
        os.link(disk, folder / "disk")
        for path in _paths(tree, folder, "loader/entries"):
            _copy(tree, folder, path)
        for entry in (folder / "loader/entries").glob("*"):
            number = entry.name.removeprefix("kos-").partition(".")[0].partition("+")[0]
            for part in ("linux", "initrd"):
                _copy(tree, folder, f"kos/{number}/{part}")
        found = bootloaders.systemd_boot(folder)
    if not found:
        return None
    for number in range(1, SWITCHES + 1):
        whole = [diskswitch.content(part, number) for part in ("kernel", "initrd")]
        if [found[0].kernel, found[0].initrd] == whole:
            return number
    return 0


def _paths(tree, folder, of):
    said = _mtools(tree, folder, "mdir", "-b", "-i", "{disk}", f"::/{of}")
    return [line.removeprefix("::/") for line in said.splitlines() if not line.endswith("/")]


def _copy(tree, folder, path):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    _mtools(tree, folder, "mcopy", "-n", "-i", "{disk}", f"::/{path}", f"/tmp/{folder.name}/{path}")


def _mtools(tree, folder, *argv):
    line = [word.format(disk=f"/tmp/{folder.name}/disk") for word in argv]
    known = {"MTOOLS_SKIP_CHECK": "1", "PATH": "/usr/sbin:/usr/bin"}
    return subprocess.run(["chroot", tree, *line], env=known, capture_output=True, text=True, check=False).stdout


def judged(media, recording, number, work):
    """How many states start which system, and those that are worse than what was on the disk for good."""
    tree = diskmachine.ensure(media.lab, media.apt) / "tree"
    rows, faults = collections.Counter(), []
    file = work / "replayed"
    disk = crashstates.Disk(recording, file, SIZE)
    epoch, durable = -1, None
    for state in crashstates.states(recording, number, crashtable.SEED, lambda _index: 1):
        if state.epoch != epoch:
            disk.forward(state.epoch)
            epoch, durable = state.epoch, first(tree, file)
        undo = disk.apply(state)
        starts = first(tree, file)
        disk.undo(undo)
        rows["nothing, before there is a first" if starts is None else f"system {starts}"] += 1
        if starts == 0 or (durable and (starts is None or starts < durable)):
            faults.append(f"epoch {state.epoch}, {state.how}: {durable} was there, {starts} starts")
    return rows, faults


@pytest.fixture(scope="module")
def media():
    return mediums.Media(f"switches{os.getpid()}")


@pytest.fixture
def work(media, tmp_path):
    """On the file system of the machine's tree, so that a disk can be linked into it."""
    tree = diskmachine.ensure(media.lab, media.apt) / "tree"
    with tempfile.TemporaryDirectory(dir=tree / "tmp") as name:
        yield Path(name)


def test_the_one_before_or_the_new_one_starts(media, work, tmp_path):
    script = "".join(SWITCH.format(number=number) for number in range(1, SWITCHES + 1))
    recording = recorded(media, tmp_path, script)
    rows, faults = judged(media, recording, STATES if crashtable.FULL else SAMPLE, work)
    crashtable.note([f"{SWITCHES} switches of the system: {recording.writes} writes, {len(recording.epochs)} epochs",
                     *(f"  {count:5} {what}" for what, count in sorted(rows.items()))])  # fmt: skip
    assert not faults, faults
    assert {f"system {number}" for number in range(2, SWITCHES + 1)} <= set(rows)


def test_the_harness_sees_what_it_is_there_to_see(media, work, tmp_path):
    recording = recorded(media, tmp_path, SWITCH.format(number=1) + IN_PLACE)
    _rows, faults = judged(media, recording, SAMPLE, work)
    assert faults


def of_a_node(media, recording, number, work, title):
    """The crashes of a node that deploys and updates, in the table."""
    tree = diskmachine.ensure(media.lab, media.apt) / "tree"
    rows, faults = nodecrashes.judged(media, recording, number, work, lambda esp: first(tree, esp))
    crashtable.note([f"{title}: {recording.writes} writes, {len(recording.epochs)} epochs",
                     *(f"  {count:5} {what}" for what, count in sorted(rows.items()))])  # fmt: skip
    return rows, faults


def test_a_system_that_starts_has_its_snapshot_and_a_whole_generation(media, work, tmp_path):
    recording = nodecrashes.record(media, tmp_path)
    title = f"{nodecrashes.SWITCHES} updates of a node, two deployments before each"
    rows, faults = of_a_node(media, recording, MOUNTED if crashtable.FULL else SOME, work, title)
    assert not faults, faults
    assert len(rows) > nodecrashes.SWITCHES


def test_a_snapshot_that_is_not_on_the_disk_before_its_entry_is_seen(media, work, tmp_path):
    recording = nodecrashes.record(media, tmp_path, "unsynced")
    _rows, faults = of_a_node(media, recording, SOME, work, "control, no sync of the new system")
    assert any("starts, and is not whole" in fault for fault in faults), faults
