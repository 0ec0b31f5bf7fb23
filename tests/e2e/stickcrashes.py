# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recorded install from a stick: how it is made, and gone on with, and what its crashes are judged by.

Its plan comes out of the recording, and so does what it unpacked and made.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from functools import cached_property, partial

import benches
import crashrun
import crashstates
import mediabuilds
from crashclear import Clear
from crashoracle import RESUMABLE, STAGED
from crashtools import Broken, Region

from ansible_collections.kind.kos.lab.machines import Disk
from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names
from ansible_collections.kind.kos.plugins.plugin_utils import partition_table
from kos_install.engine import journal
from kos_install.storage.actions import Plan

# Where the power is cut for those that are gone on with, if the table has a state there: one step of each phase.
PHASES = ("luks", "unpack", "converge", "boot", "finish")
_RESUMED = 5
# Done again by every install: the first is no more after a start, and the second is never believed.
_AGAIN = ("mount", "verify")
_STEP = re.compile(r"\[\d+/\d+\] (\S+): (done|skipped)")


@dataclass(frozen=True)
class Recorded:
    """An install that was recorded. What its machine had is in the folder of `bench`."""

    bench: benches.Bench

    @property
    def log(self):
        return self.bench.folder / "log"

    @property
    def disk(self):
        """As it ended."""
        return self.bench.folder / "recorded.raw"

    @cached_property
    def recording(self):
        return crashstates.read(self.log)

    @cached_property
    def install(self):
        """What its crashes are judged by."""
        plan = plan_of(self.recording, self.disk, self.bench.folder)
        return crashrun.Install("an install from a stick", self.log, self.disk, plan, self.bench.canary)

    def judged(self, machine, number, seed, thorough):
        """The table of its crashes."""
        expect = partial(system_of, install=self.install, stick=self.bench.stick)
        return crashrun.run(self.install, machine, number, seed, expect, thorough=thorough)

    def resumed(self, state):
        """The stick starts beside what a crash left, with the same answers: which steps it did, and which it skipped.

        Fails unless the install ends well.
        """
        crashrun.leave(self.recording, state, self.disk.stat().st_size, self.bench.disk)
        with self.bench.installing(self.bench.answers()) as machine:
            steps = _ended(machine)
        return [[name for name, how in steps if how == wanted] for wanted in ("done", "skipped")]

    def proved_before(self, phase):
        """The steps before a phase that are skipped when they are proved."""
        actions = Plan.model_validate_json(self.install.plan).actions
        [at] = [number for number, action in enumerate(actions) if action.kind == phase]
        return [action.id for action in actions[:at] if action.kind not in _AGAIN]


def record(media, folder):
    """The recording that a folder has, or a new one of a stick that is built for it: ten minutes of two cores."""
    builder, canary = mediabuilds.Builder(folder), folder / "canary"
    if not canary.exists():
        canary.write_text(f"canary-{secrets.token_hex(12)}")
    found = Recorded(benches.Bench(media, builder, builder.stick(folder), folder, canary.read_text()))
    if not found.disk.exists():
        found.bench.fresh()
        found.log.unlink(missing_ok=True)
        disks = (Disk(found.bench.disk, benches.SERIAL, found.log),)
        with found.bench.installing(found.bench.answers(), disks=disks) as machine:
            _ended(machine)
        found.bench.disk.rename(found.disk)
    return found


def _ended(machine):
    """The steps of an install that nobody watches; it ends with the power off."""
    found = machine.wait_for("Installed: ", "FAILED: ", "kos-unattended.service: Failed", seconds=3 * benches.INSTALLS)
    assert found and found[0].startswith("Installed"), machine.said[-5000:]
    machine.running.process.wait(600)
    return _STEP.findall(machine.said)


def spread(table):
    """Five states that have something of an epoch, with the step that was under way: of as many steps as there are."""
    left = {}
    for one in table.judged:
        if one.verdict == RESUMABLE and one.phase and one.state.kept:
            left.setdefault(one.phase, []).append(one.state)
    first = [phase for phase in PHASES if phase in left] + sorted(left, key=lambda phase: -len(left[phase]))
    phases = [phase for number, phase in enumerate(first) if phase not in first[:number]][:_RESUMED]
    chosen = [(phase, left[phase].pop(len(left[phase]) // 2)) for phase in phases]
    while len(chosen) < _RESUMED:
        longest = max(left, key=lambda phase: len(left[phase]))
        chosen.append((longest, left[longest].pop(len(left[longest]) // 2)))
    return chosen


def plan_of(recording, disk, work):
    """The plan that was carried out, from the first journal that was whole: nothing of it is left at the end."""
    where = _partition(disk, names.JOURNAL)
    replayed = crashstates.Disk(recording, work / "until-planned", disk.stat().st_size)
    for index, epoch in enumerate(recording.epochs):
        replayed.forward(index + 1)
        if not any(one.start < where.end and one.end > where.start for one in epoch):
            continue
        with (work / "until-planned").open("rb") as source:
            source.seek(where.start)
            (work / "journal").write_bytes(source.read(where.end - where.start))
        try:
            return json.dumps(journal.read(work / "journal").plan.model_dump(mode="json"))
        except journal.NoJournal:
            continue
    raise Broken("no journal was ever begun")


def system_of(oracle, install, stick):
    """What the finished disk holds, and of the stick's image all that no later step changed."""
    recording, done = crashstates.read(install.log), oracle.work / "done"
    clear = Clear(oracle.work / "done-clear", oracle.regions[names.ROOT], *oracle.secrets_of(install.disk))
    crashstates.Disk(recording, done, install.disk.stat().st_size, clear).forward(len(recording.epochs))
    whole = oracle.restored(oracle.work / "done-clear")
    esp = {name: digest for name, digest in oracle.esp(done).items() if name in STAGED}
    assert set(esp) == set(STAGED), sorted(esp)
    image = _cut(stick, _root_of(stick), oracle.work / "stick.squashfs")
    unpacked = {crashrun.placed(name): digest for name, digest in crashrun.unsquashed(oracle, image).items()}
    for name in ("done", "done-clear", "stick.squashfs"):
        (oracle.work / name).unlink()
    same = {name: digest for name, digest in unpacked.items() if whole.get(name) == digest}
    # Nearly all of it, or what is compared with is not what was installed.
    assert len(same) > 0.9 * len(unpacked), (len(same), len(unpacked))
    return {"root": same, "complete": whole, "esp": esp}


def _partition(disk, label):
    with disk.open("rb") as stream:
        rows = partition_table.read(stream.read(partition_table.HEAD)).partitions
    [found] = [Region(one.start, one.start + one.size) for one in rows if one.name == label]
    return found


def _root_of(stick):
    with stick.open("rb") as stream:
        rows = partition_table.read(stream.read(partition_table.HEAD)).partitions
    [found] = [Region(one.start, one.start + one.size) for one in rows if one.type == names.TYPES["root-amd64"]]
    return found


def _cut(source, where, to):
    with source.open("rb") as stream, to.open("wb") as sink:
        stream.seek(where.start)
        left = where.end - where.start
        while left:
            piece = stream.read(min(left, 1 << 20))
            sink.write(piece)
            left -= len(piece)
    return to
