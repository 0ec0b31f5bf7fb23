# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recorded install from a stick is judged by: its plan, out of the recording, and what it unpacked and made."""

from __future__ import annotations

import json

import crashrun
import crashstates
from crashoracle import Broken, Clear, Region

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names
from ansible_collections.kind.kos.plugins.plugin_utils import partition_table
from kos_install.engine import journal


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
    esp = oracle.esp(done)
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
