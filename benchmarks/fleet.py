# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many nodes: what one more costs the controller, and planning for ten thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import BIN, INVENTORY, ROOT, Result, run

SIZES = (1, 2, 4, 8)
HOSTS = 10_000
KINDS = 20


def controller_cost() -> Result:
    """Processor seconds of the controller per node, for a no-change run over 1, 2, 4 and 8 nodes; 1 node is the floor.

    The nodes share this machine's cores, so the clock says nothing here.
    """
    names = [f"bench{number}" for number in range(max(SIZES))]
    run("kai", "lab", "up", *names)
    argv = ("ansible-playbook", "site.yml", "-i", INVENTORY, "-e", "kos_profile=browser_extension kos_site_layer=")
    run(*argv)
    per_node = [run(*argv, "--limit", ",".join(names[:size])).cpu / size for size in SIZES]
    ratios = [cost / per_node[0] for cost in per_node[1:]]
    shown = ", ".join(f"{size}: {ratio:.2f}" for size, ratio in zip(SIZES[1:], ratios, strict=True))
    run("kai", "lab", "down", *names)
    return Result("controller's processor time a node, of that with 1 node", "flat (≤ 1)", [], ratios, shown)


def planning() -> list[str]:
    """`kai plan` over ten thousand machines of twenty sizes: seconds and MB, beside starting `kai` at all."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.json"
        path.write_text(json.dumps({f"host{number}": _machine(number % KINDS) for number in range(HOSTS)}))
        plan = _timed(
            "plan", "--profile", "personal_node", "--facts", str(path), "--accept-shortfall", "cpu,memory,disk"
        )
    floor = _timed("--version")
    return [
        f"{HOSTS} hosts of {KINDS} kinds: {plan[0]:.1f} s, {plan[1]} MB (goal: 10 s, 500 MB);"
        f" kai --version alone: {floor[0]:.1f} s, {floor[1]} MB"
    ]


def _timed(*argv: str) -> tuple[float, int]:
    began = time.monotonic()
    with subprocess.Popen([BIN / "kai", *argv], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _pid, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"kai {' '.join(argv)} ended with {process.returncode}")
    return time.monotonic() - began, used.ru_maxrss // 1024


def _machine(kind: int) -> dict[str, object]:
    size = kind // 4 + 1
    return {
        "os": {"id": "debian", "version": "13"}, "architecture": ("amd64", "arm64")[kind % 2], "cpu": 4 * size,
        "memory_mb": 8192 * size, "disk_gb": 200 * size, "gpus": ["nvidia"] if kind % 4 > 1 else [],
    }  # fmt: skip
