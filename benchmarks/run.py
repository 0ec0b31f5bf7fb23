# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kOS beside a peer or a floor, in the same run on the same machine: `make bench`. Ratios count, seconds do not.

Each pair is run in turn (A B A B …) and the median of its ratios is printed with the goal.
"""

from __future__ import annotations

import argparse
import os
import statistics

import backup
import containers
import deploys
import fleet
import installs
import media
from measure import Result, run
from rich.console import Console
from rich.table import Table


def main() -> None:
    """Run every comparison, or those named, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="pairs of each comparison")
    parser.add_argument("only", nargs="*", help="deploys containers backup fleet planning media installs; default: all")
    options = parser.parse_args()
    results: list[Result] = []
    notes: list[str] = []
    chosen = options.only or ["deploys", "containers", "backup", "fleet", "planning", "media", "installs"]
    try:
        if "deploys" in chosen:
            results += [deploys.fresh_converge(options.n), deploys.no_change(options.n)]
            notes += deploys.memory()
            # A run of 300 template tasks takes minutes, and its ratio is far from any goal: one pair says enough.
            results.append(deploys.unchanged_files(1))
        if "containers" in chosen:
            results += containers.containers(options.n)
        if "backup" in chosen:
            results += backup.backups(options.n)
        if "fleet" in chosen:
            results.append(fleet.controller_cost())
        if "planning" in chosen:
            notes += fleet.planning()
        if "media" in chosen:
            # Each side takes minutes: once says enough.
            rows, lines = media.sticks()
            results += rows
            notes += lines
        if "installs" in chosen:
            rows, lines = installs.installs()
            results += rows
            notes += lines
    finally:
        run("kai", "lab", "down")
    table = Table("comparison", "goal", "wall: median (min–max)", "cpu: median (min–max)", "", box=None, pad_edge=False)
    for row in results:
        table.add_row(row.name, row.goal, _spread(row.wall), _spread(row.cpu), row.note)
    console = Console(width=160)
    console.print(f"kOS benchmarks: {options.n} pairs each, in turn, on {os.cpu_count()} cores\n")
    console.print(table)
    console.print("", *notes, sep="\n  ")


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "–"


if __name__ == "__main__":
    main()
