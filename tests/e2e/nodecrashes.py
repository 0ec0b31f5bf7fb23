# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Crashes of a node that switches its generation and its system: recorded once, each state judged by Linux itself.

What is on the btrfs is read where a kernel has mounted it, and replayed its log: many crashed disks lie one behind the
other in one sparse file, which one machine goes through.
"""

from __future__ import annotations

import collections
import json
from dataclasses import dataclass

import crashstates
import crashtable
import diskmachine
import sparse

MIB = 1 << 20
ESP, BTRFS, SIZE = (MIB, 49 * MIB), (64 * MIB, 4096 * MIB), 4097 * MIB
SWITCHES = 4
_PREPARE = """
printf 'label: gpt\\nstart=1MiB, size=48MiB, type=uefi\\nstart=64MiB, size=4032MiB\\n' | sfdisk --quiet /dev/vdc
udevadm settle
mkfs.fat -F 32 -s 1 /dev/vdc1 >/dev/null
mkfs.btrfs --quiet /dev/vdc2
mkdir -p /run/esp /run/node /run/kos/top
ln -sfn /run/code/plugins/module_utils/node /run/node/kos_node
mount -o umask=0077 /dev/vdc1 /run/esp
mount -o subvolid=5 /dev/vdc2 /run/kos/top
btrfs --quiet subvolume create /run/kos/top/@var
sync
"""
_SWITCH = "python3 /run/code/tests/e2e/disknode.py /run/node /dev/vdc2 {number} {how}\n"
_JUDGE = """
mkdir -p /run/node
ln -sfn /run/code/plugins/module_utils/node /run/node/kos_node
python3 /run/code/tests/e2e/disknode.py /run/node --judge /dev/vdc {count} {size}
"""
_NOTHING = "nothing, before there is a first"


@dataclass(frozen=True)
class Seen:
    """What starts from a crashed disk: its system, and the generation in that; `fault` where one is not whole."""

    system: int
    generation: int
    remembered: int
    fault: str = ""


def record(media, folder, how=""):
    """The log of a node that deploys and updates several times; `how`: sabotage."""
    log = folder / "log"
    with diskmachine.booted(media.lab, media.apt, [diskmachine.Disk(folder / "disk", "NODE", SIZE, log)]) as machine:
        switches = "".join(_SWITCH.format(number=number, how=how) for number in range(1, SWITCHES + 1))
        machine.run("set -e\n" + _PREPARE + switches + "umount /run/esp /run/kos/top; sync; sleep 1", seconds=900)
    return crashstates.read(log)


def judged(media, recording, number, work, first):
    """How many states start what, and those that are worse than what was there for good.

    `first` tells the system that firmware would start from a FAT.
    """
    chosen = crashstates.states(recording, number, crashtable.SEED)
    # What an epoch begins with is there for good.
    begins = {crashstates.State(one.epoch, "nothing of it") for one in chosen}
    asked = sorted({*chosen, *begins}, key=lambda one: (one.epoch, one.how != "nothing of it", one.how, one.kept))
    seen = _seen(media, recording, asked, work, first)
    rows, faults, durable = collections.Counter(), [], None
    for state, found in zip(asked, seen, strict=True):
        if state.how == "nothing of it":
            durable = found
        fault = found.fault or _lost(found, durable)
        rows["BROKEN" if fault else _named(found)] += 1
        if fault:
            faults.append(f"epoch {state.epoch} of {len(recording.epochs)}, {state.how}: {fault}")
    return rows, faults


def _lost(found, durable):
    before, after = ([one.system, one.generation, one.remembered] for one in (durable, found))
    return f"{before} was there, {after} is" if any(a < b for a, b in zip(after, before, strict=True)) else ""


def _named(found):
    return f"system {found.system}, generation {found.generation}" if found.system else _NOTHING


def _seen(media, recording, states, work, first):
    """What each state starts; what is on its btrfs is asked but once for the same content."""
    disk, esp, many = (work / name for name in ("replayed", "esp", "many"))
    replayed = crashstates.Disk(recording, disk, SIZE)
    starts, places, numbers = {}, [], {}
    with many.open("wb") as sink:
        for state in states:
            undo = replayed.apply(state)
            on_esp, on_btrfs = (replayed.touched(state, *where) for where in (ESP, BTRFS))
            if on_esp not in starts:
                with disk.open("rb") as source, esp.open("wb") as to:
                    sparse.copy(source, *ESP, to, 0)
                    to.truncate(ESP[1] - ESP[0])
                starts[on_esp] = first(esp)
            if on_btrfs not in numbers:
                numbers[on_btrfs] = len(numbers)
                with disk.open("rb") as source:
                    sparse.copy(source, *BTRFS, sink, numbers[on_btrfs] * (BTRFS[1] - BTRFS[0]))
            places.append((on_esp, on_btrfs))
            replayed.undo(undo)
        sink.truncate(len(numbers) * (BTRFS[1] - BTRFS[0]))
    mounted = _mounted(media, many, len(numbers))
    return [_joined(starts[on_esp], mounted[numbers[on_btrfs]]) for on_esp, on_btrfs in places]


def _mounted(media, many, count):
    size = BTRFS[1] - BTRFS[0]
    with diskmachine.booted(media.lab, media.apt, [diskmachine.Disk(many, "MANY")]) as machine:
        said = machine.run(_JUDGE.format(count=count, size=size), seconds=60 + 20 * count)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith(("{", "null"))]
    assert len(lines) == count, said[-3000:]
    return lines


def _joined(system, found):
    if system is None:
        return Seen(0, 0, 0)
    if found is None:
        return Seen(system, 0, 0, "there is an entry, and no file system that mounts")
    row = found["systems"].get(str(system))
    if not system or row is None or not row["whole"]:
        return Seen(system, 0, found["last"], f"system {system} starts, and is not whole")
    fault = "its generation is not whole" if row["generation"] < 0 else ""
    return Seen(system, row["generation"], found["last"], fault)
