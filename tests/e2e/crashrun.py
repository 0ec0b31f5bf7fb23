# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a recorded install to the table of its crashes."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import crashstates
from crashoracle import LOADER, Broken, Clear, Oracle, digests

from ansible_collections.kind.kos.plugins.module_utils.node import system_layout as names
from kos_install.storage.actions import Plan

# Where a folder of the system lies on the disk: the longest one that fits counts.
_PLACES = {
    "": "@root.1", "var": "@var", "var/log": "@log", "home": "@home",
    **{where.lstrip("/"): f"@root.1{names.SYSIMAGE}/{name}" for name, where in names.BOUND.items()},
}  # fmt: skip


@dataclass
class Table:
    """What the crashes of one recording came to."""

    title: str
    recording: crashstates.Recording
    rows: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    judged: list[tuple[crashstates.State, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def states(self):
        return sum(self.rows.values())

    def lines(self):
        """The table as text."""
        found = self.recording
        head = f"{self.title}: {found.writes} writes, {found.size >> 20} MiB, {len(found.epochs)} epochs"
        rows = [f"  {count:5} {what}" for what, count in sorted(self.rows.items())]
        speed = f"  {self.states} states in {self.seconds:.0f} s ({self.seconds / max(1, self.states):.3f} s each)"
        return [head, *rows, speed]


def run(title, folder, log, disk, plan, passphrase, number, seed, image, of=(names.ESP, names.JOURNAL, names.ROOT)):
    """Judge `number` crashes of a recorded install. `plan` is JSON, `disk` how it ended, `image` what was unpacked.

    Only crashes that touch a partition `of` these are taken; more where firmware or the journal is written.
    """
    plan = Plan.model_validate_json(plan)
    table = Table(title, crashstates.read(log))
    tree, began = folder / "tree", time.monotonic()
    with _work(tree) as work:
        oracle = Oracle(tree, work, disk, plan, passphrase, {"root": {}, "esp": {}})
        header, key = oracle.secrets_of(disk)
        file, inside = work / "disk", work / "clear"
        clear = Clear(inside, oracle.regions[names.ROOT], header, key)
        replayed = crashstates.Disk(table.recording, file, disk.stat().st_size, clear)
        oracle.expected = expected(oracle, disk, folder, image)
        epoch, least = -1, 0
        for state in crashstates.states(table.recording, number, seed, _weights(table.recording, oracle, of)):
            if state.epoch != epoch:
                replayed.forward(state.epoch)
                epoch, least = state.epoch, oracle.durable(file)
            undo = replayed.apply(state)
            where = lambda start, end, state=state: replayed.touched(state, start, end)  # noqa: E731
            try:
                verdict = oracle.judge(file, inside, where, least)
            except Broken as error:
                verdict = "BROKEN"
                table.faults.append(f"epoch {state.epoch} of {len(table.recording.epochs)}, {state.how}: {error}")
            table.rows[verdict] += 1
            table.judged.append((state, verdict))
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


def expected(oracle, disk, folder, image):
    """What a complete disk holds: out of the image, out of Debian's packages; never out of what was installed."""
    root = {}
    if image:
        out = oracle.work / "image"
        (oracle.work / "image.squashfs").write_bytes(image.read_bytes())
        oracle.tool(
            "unsquashfs", "-quiet", "-no-progress", "-dest", oracle.inside(out), oracle.inside(out) + ".squashfs"
        )
        root = {f"{placed(name)}": digest for name, digest in digests(out).items()}
        shutil.rmtree(out)
    tree = folder / "tree"
    sources = {
        LOADER: tree / "usr/lib/shim/shimx64.efi.signed",
        "EFI/BOOT/grubx64.efi": tree / "usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed",
        "kos/1/linux": next((tree / "boot").glob("vmlinuz-*")),
        "kos/1/initrd": folder / "initrd",
    }
    return {"root": root, "esp": {name: _masked(path) for name, path in sources.items()}}


def placed(name):
    """A file of the system, as the disk has it."""
    folder = max((one for one in _PLACES if name.startswith(f"{one}/") or not one), key=len)
    return f"{_PLACES[folder]}/{name.removeprefix(folder).lstrip('/')}"


def _masked(path):
    folder = Path(tempfile.mkdtemp())
    try:
        shutil.copy(path, folder / "file")
        return digests(folder, masked=True)["file"]
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _work(tree):
    with tempfile.TemporaryDirectory(prefix="crashes-", dir=tree / "tmp") as name:
        yield Path(name)
