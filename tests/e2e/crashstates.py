# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way in which a power cut can leave a disk whose writes were recorded (QEMU's blklogwrites, dm-log-writes v1).

A disk has taken all that was written before the last flush that ended; of what came after it has any part, in any
order, and of one write it may have some physical sectors and not others.
"""

from __future__ import annotations

import random
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import sparse

_MAGIC = 0x6A736677736872
_HEAD, _ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
_FLUSH, _FUA, _DISCARD = 1, 2, 4
# Of the crashes that are chosen at most so many are those that lost nothing of an epoch but all of it.
_BETWEEN = 1 / 3
# What a disk writes as a whole: nearly all that are sold call 512 bytes a sector and write 4096.
PHYSICAL = 4096


@dataclass(frozen=True)
class Write:
    """Bytes `start` to `end` of the disk, and where the log has them; `at` None: a discard."""

    start: int
    end: int
    at: int | None


@dataclass(frozen=True)
class State:
    """A crash: the epochs before number `epoch` whole, of that one the pieces that `kept` names."""

    epoch: int
    how: str
    kept: tuple[tuple[int, int, int], ...] = ()  # number of the write, from and to which of its bytes


@dataclass
class Recording:
    """A log: its writes between flushes."""

    log: Path
    epochs: list[list[Write]] = field(default_factory=list)

    @property
    def writes(self):
        return sum(map(len, self.epochs))

    @property
    def size(self):
        return sum(one.end - one.start for epoch in self.epochs for one in epoch if one.at is not None)


def read(log):
    """The recording in a file."""
    found = Recording(log, [[]])
    with log.open("rb") as stream:
        magic, _version, _count, sector = _HEAD.unpack(stream.read(_HEAD.size))
        assert magic == _MAGIC, hex(magic)
        at, end = sector, log.stat().st_size
        while at + _ENTRY.size <= end:
            stream.seek(at)
            place, length, flags, _data = _ENTRY.unpack(stream.read(_ENTRY.size))
            at += sector
            if (place, length, flags) == (0, 0, 0):
                break  # the log was cut here, with its machine
            # Such a write is durable, and what came before it is not: that would be more states than are modelled.
            assert not flags & _FUA, "a write that forces itself onto the disk"
            if flags & _FLUSH and found.epochs[-1]:
                found.epochs.append([])
            if length:
                discard = flags & _DISCARD
                found.epochs[-1].append(Write(place * sector, (place + length) * sector, None if discard else at))
                at += 0 if discard else length * sector
    return found


def states(recording, number, seed, weight=lambda _epoch: 1):
    """A seeded choice of `number` different crashes, in the order of time; epochs of more `weight` have more of them.

    The beginnings of epochs, all of them or a sample that is a third of all states; then prefixes, random parts, and
    prefixes whose last write is torn.
    """
    chooser = random.Random(seed)  # noqa: S311
    weights = [weight(index) for index in range(len(recording.epochs))]
    between = [State(index, "nothing of it") for index in range(len(recording.epochs)) if weights[index]]
    found = set(chooser.sample(between, min(len(between), int(number * _BETWEEN))))
    found.add(State(len(recording.epochs), "all of it"))
    tried = 0
    while len(found) < number and tried < 50 * number:
        tried += 1
        [index] = chooser.choices(range(len(recording.epochs)), weights)
        found.add(_crash(recording.epochs[index], index, chooser))
    return sorted(found, key=_order)


def _order(state):
    return state.epoch, state.how, state.kept


def _crash(epoch, index, chooser):
    how = chooser.choice(("a prefix", "some of it", "a torn write"))
    numbers = list(range(len(epoch)))
    if how == "some of it":
        chosen = [number for number in numbers if chooser.random() < 0.5]
    else:
        chosen = numbers[: chooser.randint(1, len(numbers))] if numbers else []
    kept = [(number, 0, epoch[number].end - epoch[number].start) for number in chosen]
    if how == "a torn write" and kept:
        number, _from, length = kept[-1]
        sectors = -(-length // PHYSICAL)
        half = chooser.randrange(sectors) * PHYSICAL
        kept[-1] = (number, 0, half) if chooser.random() < 0.5 else (number, half, length)
    return State(index, how, tuple(one for one in kept if one[1] < one[2]))


class Disk:
    """The disk as the recording goes on; `within` makes it what a crash leaves, for a moment.

    It was empty before, or as `base`. `clear` keeps what is encrypted a second time, in clear.
    """

    def __init__(self, recording, file, size, clear=None, base=None):
        self.recording, self.clear = recording, clear
        file.unlink(missing_ok=True)
        if base:
            subprocess.run(["cp", "--sparse=always", base, file], check=True)
        else:
            with file.open("wb") as stream:
                stream.truncate(size)
        self._disk, self._log = file.open("r+b", buffering=0), recording.log.open("rb", buffering=0)
        self._done = 0

    def forward(self, epoch):
        """Go on to the beginning of an epoch."""
        while self._done < epoch:
            for write in self.recording.epochs[self._done]:
                self._apply(write, 0, write.end - write.start)
            self._done += 1

    def apply(self, state):
        """Become what a crash leaves; returns what undoes it."""
        self.forward(state.epoch)
        undo = []
        for number, first, last in state.kept:
            write = self.recording.epochs[state.epoch][number]
            undo.append(self._saved(write.start + first, write.start + last))
            self._apply(write, first, last)
        return undo

    def undo(self, undo):
        for restore in reversed(undo):
            restore()

    def touched(self, state, start, end):
        """What identifies the content of a region in a crash: which writes went there."""
        last = -1
        for index in range(min(state.epoch, len(self.recording.epochs)) - 1, -1, -1):
            if any(one.start < end and one.end > start for one in self.recording.epochs[index]):
                last = index
                break
        here = []
        for number, first, to in state.kept:
            write = self.recording.epochs[state.epoch][number]
            if write.start + first < end and write.start + to > start:
                here.append((state.epoch, number, first, to))
        return (last, *here)

    def _apply(self, write, first, last):
        start, end = write.start + first, write.start + last
        if write.at is None:
            sparse.punch(self._disk, start, end)
            if self.clear:
                self.clear.discard(start, end)
            return
        self._log.seek(write.at + first)
        content = self._log.read(end - start)
        self._disk.seek(start)
        self._disk.write(content)
        if self.clear:
            self.clear.put(start, content)

    def _saved(self, start, end):
        clear = self.clear.saved(start, end) if self.clear else None
        disk = sparse.saved(self._disk, start, end)

        def restore():
            disk()
            if clear:
                clear()

        return restore
