# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a recorded install to the table of its crashes."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import crashstates
import diskmachine
from crashclear import Clear
from crashoracle import COMPLETE, LOADER, Oracle
from crashtools import Broken, digests

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names
from ansible_collections.kind.kos.plugins.plugin_utils import cpio
from kos_install.storage.actions import Plan

# Where a folder of the system lies on the disk: the longest one that fits counts.
_PLACES = {
    "": "@root.1", "var": "@var", "var/log": "@log", "home": "@home",
    **{where.lstrip("/"): f"@root.1{names.SYSIMAGE}/{name}" for name, where in names.BOUND.items()},
}  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A crash and what it left; `phase`: the kind of the action that was under way, where one was."""

    state: crashstates.State
    verdict: str
    phase: str


@dataclass
class Table:
    """What the crashes of one recording came to."""

    title: str
    recording: crashstates.Recording
    rows: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    read: int = 0  # of how many the whole system was read
    judged: list[Judged] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def states(self):
        return sum(self.rows.values())

    @property
    def torn(self):
        """How many left something of an epoch, and not all of it."""
        return sum(bool(one.state.kept) for one in self.judged)

    def lines(self):
        """The table as text."""
        found = self.recording
        head = f"{self.title}: {found.writes} writes, {found.size >> 20} MiB, {len(found.epochs)} epochs"
        rows = [f"  {count:5} {what}" for what, count in sorted(self.rows.items())]
        rows.append(f"  {self.torn:5} in the midst of an epoch; the system was read in {self.read}")
        speed = f"  {self.states} states in {self.seconds:.0f} s ({self.seconds / max(1, self.states):.3f} s each)"
        return [head, *rows, speed]


@dataclass(frozen=True)
class Install:
    """A recorded install: its log, the disk as it ended, its plan (JSON), the passphrase."""

    title: str
    log: Path
    disk: Path
    plan: str
    passphrase: str


def run(install, folder, number, seed, expect, of=(names.ESP, names.JOURNAL, names.ROOT), thorough=1):
    """Judge `number` crashes of a recorded install. `expect` tells, of an oracle, what a complete disk holds.

    Only crashes that touch a partition `of` these are taken; more where firmware or the journal is written. In one of
    `thorough` epochs the whole system is read though the disk does not start; where it starts, always.
    """
    table, began = Table(install.title, crashstates.read(install.log)), time.monotonic()
    epochs = table.recording.epochs
    with _work(folder / "tree") as work:
        plan = Plan.model_validate_json(install.plan)
        oracle = Oracle(folder / "tree", work, install.disk, plan, install.passphrase, {})
        file, inside = work / "disk", work / "clear"
        clear = Clear(inside, oracle.regions[names.ROOT], *oracle.secrets_of(install.disk))
        replayed = crashstates.Disk(table.recording, file, install.disk.stat().st_size, clear)
        oracle.expected = expect(oracle)
        at, least = 0, 0
        for state in crashstates.states(table.recording, number, seed, _weights(table.recording, oracle, of)):
            while at < state.epoch:
                replayed.forward(at + 1)
                least = oracle.durable(file) if _touches(epochs[at], [oracle.regions[names.JOURNAL]]) else least
                at += 1
            undo = replayed.apply(state)
            where = partial(replayed.touched, state)
            oracle.reads_all = state.epoch % thorough == 0
            try:
                verdict = oracle.judge(file, inside, where, least)
            except Broken as error:
                verdict = "BROKEN"
                table.faults.append(f"epoch {state.epoch} of {len(epochs)}, {state.how}: {error}")
            table.rows[verdict] += 1
            table.read += oracle.reads_all or verdict == COMPLETE
            table.judged.append(Judged(state, verdict, oracle.phase(file)))
            replayed.undo(undo)
    table.seconds = time.monotonic() - began
    return table


def leave(recording, state, size, to):
    """Write the disk as a crash leaves it to a file."""
    crashstates.Disk(recording, to, size).apply(state)
    return to


def _weights(recording, oracle, of):
    small = [oracle.regions[names.ESP], oracle.regions[names.JOURNAL]]
    wanted = [oracle.regions[label] for label in of]

    def weight(index):
        epoch = recording.epochs[index]
        # Before there are partitions, nothing is in one.
        if not _touches(epoch, wanted) and len(of) < len(oracle.regions):
            return 0
        return 1 + 2 * _touches(epoch, small) + min(len(epoch), 20) / 10

    return weight


def _touches(epoch, regions):
    return any(one.start < where.end and one.end > where.start for one in epoch for where in regions)


def small_system(oracle, folder, image):
    """What a disk with a small system holds: out of the image, out of Debian's packages; never out of an install."""
    tree = folder / "tree"
    sources = {
        LOADER: tree / "usr/lib/shim/shimx64.efi.signed",
        "EFI/BOOT/grubx64.efi": tree / "usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed",
        "kos/1/linux": next((tree / "boot").glob("vmlinuz-*")),
    }
    esp = {name: _masked(path.read_bytes()) for name, path in sources.items()}
    keymap = {"etc/kos/console.kmap": (0o644, diskmachine.KEYMAP)}
    esp["kos/1/initrd"] = _masked(cpio.appended((folder / "initrd").read_bytes(), keymap))
    root = {placed(name): digest for name, digest in unsquashed(oracle, image).items()}
    return {"root": root, "esp": esp}


def unsquashed(oracle, image):
    """The files of a squashfs."""
    out, copy = oracle.work / "image", oracle.work / "image.squashfs"
    shutil.copyfile(image, copy)
    oracle.tool("unsquashfs", "-quiet", "-no-progress", "-dest", oracle.inside(out), oracle.inside(copy))
    found = digests(out)
    shutil.rmtree(out)
    copy.unlink()
    return found


def placed(name):
    """A file of the system, as the disk has it."""
    folder = max((one for one in _PLACES if name.startswith(f"{one}/") or not one), key=len)
    return f"{_PLACES[folder]}/{name.removeprefix(folder).lstrip('/')}"


def _masked(content):
    return hashlib.sha256(content[1:]).hexdigest()


@contextlib.contextmanager
def workplace(folder):
    """A folder that Debian's tools see, and a way to call them."""
    with _work(folder / "tree") as work:

        def tool(*argv, stdin=None):
            seen = [f"/{Path(one).relative_to(folder / 'tree')}" if isinstance(one, Path) else one for one in argv]
            return subprocess.run(["chroot", folder / "tree", *seen], input=stdin, capture_output=True, check=True)

        yield work, tool


@contextlib.contextmanager
def _work(tree):
    with tempfile.TemporaryDirectory(prefix="crashes-", dir=tree / "tmp") as name:
        yield Path(name)
