# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One node's data: `kai backup` of 1 GB beside restic alone on the same files, the first time and once more."""

from __future__ import annotations

import tempfile
from pathlib import Path

from deploys import fresh_node
from measure import INVENTORY, NODE, ROOT, Result, Run, run, ssh

# In a service that is copied file by file; random, so that neither side wins by compressing.
FILL = """
set -e
mkdir -p /var/lib/kos-prometheus/bench
for part in 1 2 3 4 5 6 7 8; do head -c 134217728 /dev/urandom >/var/lib/kos-prometheus/bench/$part; done
chown -R kos-prometheus: /var/lib/kos-prometheus/bench
sync
"""
EMPTY = "rm -rf /srv/backup /srv/plain /var/lib/kos/repositories.json /var/cache/kos-backup/*; sync"
PLAIN = "RESTIC_PASSWORD=bench restic --quiet --repo /srv/plain"


def backups(times: int) -> list[Result]:
    """`kai backup` of a whole node, against `restic backup` of the folder that makes up nearly all of it.

    The command line's start, Ansible, the other services' dumps, the copy that is of one moment, its check sums and
    the pruning are kOS's; the encryption, its sums and the repository are restic's, on both sides.
    """
    fresh_node()
    with tempfile.TemporaryDirectory() as folder:
        layer = Path(folder) / "site.yaml"
        layer.write_text((ROOT / "configs/overrides/lab.yaml").read_text() + "backup: {repository: /srv/backup}\n")
        run("kai", "deploy", "-i", INVENTORY, "--limit", NODE, "--site", str(layer))
    ssh(FILL)
    first, again = [], []
    for _ in range(times):
        ssh(EMPTY)
        ssh(f"{PLAIN} init")
        first.append(_pair())
        again.append(_pair())
    note = f"{_seconds(first)}; then {_seconds(again)}"
    return [
        Result("first backup of 1 GB: kai backup / restic alone", "none set", _ratios(first), [], note),
        Result("the same 1 GB once more", "none set", _ratios(again), []),
    ]


def _pair() -> tuple[Run, Run]:
    ours = run("kai", "backup", "-i", INVENTORY, "--limit", NODE)
    return ours, run("kai", "lab", "ssh", NODE, f"{PLAIN} backup /var/lib/kos-prometheus")


def _ratios(runs: list[tuple[Run, Run]]) -> list[float]:
    return [ours.wall / plain.wall for ours, plain in runs]


def _seconds(runs: list[tuple[Run, Run]]) -> str:
    return ", ".join(f"{ours.wall:.0f} s / {plain.wall:.0f} s" for ours, plain in runs)
