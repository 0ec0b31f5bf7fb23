# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what was killed where, and what repaired it; printed at the end of the run."""

from __future__ import annotations

import contextlib
import os
import random
import time
import traceback

FULL = os.environ.get("KOS_E2E") == "full"
# In the environment, so that pytest's workers, which inherit it, choose the same sample.
SEED = int(os.environ.get("KOS_CRASH_SEED") or random.SystemRandom().randrange(10**6))
os.environ["KOS_CRASH_SEED"] = str(SEED)
HEADER = ("what", "killed at", "recovered by", "seconds", "")

_rows, _notes = [], []


@contextlib.contextmanager
def row(what, where):
    """One line of the table; what happens inside decides whether it says ok. `line["by"]` is who recovered."""
    line, began = {"by": "-"}, time.monotonic()
    try:
        yield line
        fault = ""
    except BaseException as error:
        # pytest.fail is no Exception; the other rows are worth running all the same.
        if isinstance(error, KeyboardInterrupt):
            raise
        fault = "".join(traceback.format_exception(error))[-3000:]
    _rows.append((what, where, line["by"], f"{time.monotonic() - began:.1f}", "FAILED" if fault else "ok", fault))
    print(" | ".join(_rows[-1][:5]), fault, sep="\n", flush=True)


def faults(since):
    """What went wrong in the rows from number `since` on."""
    return [f"{what}, killed at {where}:\n{fault}" for what, where, _by, _time, _word, fault in _rows[since:] if fault]


def rows():
    """What a worker of pytest sends to the process that prints the table."""
    return [list(found) for found in _rows]


def add(rows):
    """Take over the rows of a worker."""
    _rows.extend(rows)


def count():
    return len(_rows)


def sample(places, number, purpose):
    """All of `places` in a full run, else a seeded choice of `number`, in their order."""
    if FULL or len(places) <= number:
        return list(places)
    chosen = random.Random(f"{SEED} {purpose}").sample(range(len(places)), number)  # noqa: S311
    return [places[index] for index in sorted(chosen)]


def moments(number, purpose):
    """`number` shares of a run's time at which to strike; seeded."""
    return [random.Random(f"{SEED} {purpose} {index}").random() for index in range(number)]  # noqa: S311


def note(lines):
    """Have lines printed at the end, as they are."""
    _notes.extend(lines)


def notes():
    """What a worker of pytest sends beside its rows."""
    return list(_notes)


def noted(table):
    """Keep the table of what power cuts may leave for the end of the run, with its first faults; gives it back."""
    note([*table.lines(), *[f"  {fault}" for fault in table.faults[:3]], f"  seed {SEED}"])
    return table


def lines():
    """The notes, and the table as text; no table when no row was run."""
    return [*_notes, *_table()]


def _table():
    if not _rows:
        return []
    cells = [HEADER, *[found[:5] for found in _rows]]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    scope = "every place" if FULL else "a seeded sample (all: KOS_E2E=full)"
    return [*table, f"seed {SEED}, {scope}; again: KOS_CRASH_SEED={SEED}"]
