# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was under way at a crash, as marks in the recording tell it, and the table of what each phase came to."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field

import crashstates
import diskmarks


@dataclass(frozen=True)
class Mark:
    """What began to run: the number of its epoch, and of the write in that."""

    epoch: int
    number: int
    text: str


@dataclass(frozen=True)
class Phases:
    """A recording with its marks; `names`: what begins with the program, or the name of a file, that is marked."""

    recording: crashstates.Recording
    marks: list[Mark]
    names: dict[str, str]

    @property
    def first(self):
        """The epoch in which what is tested began."""
        return self.epoch_of(diskmarks.BEGUN)

    def epoch_of(self, text):
        return next(one.epoch for one in self.marks if one.text == text)

    def of(self, state):
        """The phase that a crash fell into."""
        last = max((number for number, _from, _to in state.kept), default=-1)
        passed = [one.text for one in self.marks if (one.epoch, one.number) <= (state.epoch, last)]
        return next((self.names[text] for text in reversed(passed) if text in self.names), self.names[diskmarks.BEGUN])

    def weight(self, index, decide):
        """How many of the crashes an epoch has: phases that `decide` have more of them."""
        if index < self.first:
            return 0
        decides = self.of(crashstates.State(index, "")) in decide
        return 1 + 2 * decides + min(len(self.recording.epochs[index]), 20) / 10


def read(recording, start, end, names):
    """The marks that a recording has in a region."""
    found = []
    with recording.log.open("rb") as stream:
        for index, epoch in enumerate(recording.epochs):
            for number, one in enumerate(epoch):
                if one.at is not None and start <= one.start < end:
                    stream.seek(one.at)
                    text = stream.read(one.end - one.start).rstrip(b"\0").decode(errors="replace")
                    found.append(Mark(index, number, text))
    return Phases(recording, found, names)


@dataclass
class Table:
    """What the crashes of one recording came to, by phase; `judged`: each state, and a word for what it left."""

    title: str
    phases: Phases
    judged: list[tuple[crashstates.State, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    again: collections.Counter = field(default_factory=collections.Counter)

    @property
    def torn(self):
        """How many left something of an epoch, and not all of it."""
        return sum(bool(state.kept) for state, _what in self.judged)

    def fault(self, state, text):
        where = f"epoch {state.epoch} of {len(self.phases.recording.epochs)}, {state.how}, {self.phases.of(state)}"
        self.faults.append(f"{where}: {text}")

    def went_on(self, state, what):
        """One more run ended what this crash left."""
        self.again[self.phases.of(state), what] += 1

    def lines(self):
        """The table as text."""
        found = self.phases.recording
        rows = collections.Counter((self.phases.of(state), what) for state, what in self.judged)
        order = list(dict.fromkeys(self.phases.names.values()))
        epochs = len(found.epochs) - self.phases.first
        return [
            f"{self.title}: {found.writes} writes, {found.size >> 20} MiB, {epochs} epochs",
            *(
                f"  {rows[one]:5}  {one[0]:24}{one[1]:28}one more run ended {self.again[one]}"
                for one in sorted(rows, key=lambda one: (order.index(one[0]), one[1]))
            ),
            f"  {len(self.judged)} states, {self.torn} of them in the midst of an epoch; {len(self.faults)} faults",
        ]
