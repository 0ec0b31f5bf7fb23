# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two commands in turn, on lab nodes: seconds on the clock and of processor time, and their ratios."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
INVENTORY = "inventories/lab"
NODE = "bench"


@dataclass
class Run:
    """One finished command: seconds on the clock and of processor time."""

    wall: float
    cpu: float


@dataclass
class Result:
    """One comparison: the ratios A/B of each pair, by clock and by processor time."""

    name: str
    goal: str
    wall: list[float]
    cpu: list[float]
    note: str = ""


def _environment() -> dict[str, str]:
    return {"KOS_LAB_ID": "bench", **os.environ, "LC_ALL": "C.UTF-8"}


def run(*argv: str) -> Run:
    """Run a command of .venv/bin from the repository's root. Raises CalledProcessError."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [BIN / argv[0], *argv[1:]],
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, argv))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(time.monotonic() - began, cpu)


def ssh(command: str, given: str = "", node: str = NODE) -> str:
    """The output of a command on a node that reads `given`. Raises CalledProcessError."""
    argv = [BIN / "kai", "lab", "ssh", node, command]
    done = subprocess.run(argv, cwd=ROOT, env=_environment(), input=given, capture_output=True, text=True, check=True)
    return done.stdout


def pairs(
    name: str, goal: str, times: int, first: Callable[[], Run], second: Callable[[], Run], note: str = ""
) -> Result:
    """Run both in turn `times` times."""
    runs = [(first(), second()) for _ in range(times)]
    return Result(name, goal, [a.wall / b.wall for a, b in runs], [a.cpu / b.cpu for a, b in runs], note)
