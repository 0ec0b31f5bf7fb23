# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kOS beside a peer or a floor, in the same run on the same machine: `make bench`. Ratios count, seconds do not.

Each pair is run in turn (A B A B …) and the median of its ratios is printed with the goal.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ansible_collections.kind.kos.plugins.plugin_utils.generation import Generation

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
INVENTORY = "inventories/lab"
NODE = "bench"
FILES = 300

CONVERGE = """
- hosts: kos
  gather_facts: false
  tasks:
    - kind.kos.converge: {{step: stage, id: {id}, archive: {archive}}}
      register: staged
    - kind.kos.converge: {{step: switch, part: kernel_extensions, token: '{{{{ staged.token }}}}'}}
      when: first is defined
    - kind.kos.converge: {{step: commit, token: '{{{{ staged.token }}}}'}}
      when: first is defined
"""
TEMPLATE = """
- hosts: kos
  gather_facts: false
  tasks:
    - ansible.builtin.file: {{path: /etc/bench, state: directory}}
    - ansible.builtin.template: {{src: {source}, dest: '/etc/bench/{{{{ item }}}}'}}
      loop: '{{{{ range({count}) | list }}}}'
"""


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
    return {**os.environ, "KOS_LAB_ID": "bench", "LC_ALL": "C.UTF-8"}


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


def ssh(command: str) -> str:
    """The output of a command on the node. Raises CalledProcessError."""
    argv = [BIN / "kai", "lab", "ssh", NODE, command]
    return subprocess.run(argv, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=True).stdout


def pairs(
    name: str, goal: str, times: int, first: Callable[[], Run], second: Callable[[], Run], note: str = ""
) -> Result:
    """Run both in turn `times` times."""
    runs = [(first(), second()) for _ in range(times)]
    return Result(name, goal, [a.wall / b.wall for a, b in runs], [a.cpu / b.cpu for a, b in runs], note)


def fresh_node() -> None:
    """A node that has never seen kOS; its boot is not measured."""
    run("kai", "lab", "down", NODE)
    run("kai", "lab", "up", NODE)


def fresh_converge(times: int) -> Result:
    """Everything from a bare node to a healthy one, against apt-get installing the same packages."""

    def converge() -> Run:
        fresh_node()
        return site()

    def apt() -> Run:
        packages = json.loads(ssh("cat /var/lib/kos/current/manifest.json"))["packages"]
        fresh_node()
        install = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install"
        install = f"apt-get -qq update && {install} {' '.join(packages)}"
        return run("kai", "lab", "ssh", NODE, install)

    return pairs("fresh converge / apt-get install of the same packages", "≤ 1.3 wall", times, converge, apt)


def site() -> Run:
    """One run of the playbook."""
    return run("ansible-playbook", "site.yml", "-i", INVENTORY, "--limit", NODE)


def no_change(times: int) -> Result:
    """A run that finds nothing to do, against Ansible gathering facts."""
    fresh_node()
    site()
    setup = ("ansible", NODE, "-i", INVENTORY, "-m", "ansible.builtin.setup")
    return pairs("no-change site.yml / ansible -m setup", "≤ 2 wall", times, site, lambda: run(*setup))


def unchanged_files(times: int) -> Result:
    """300 unchanged files: one call of converge, against 300 template tasks."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        converge, template = _write_plays(place)
        first = ("ansible-playbook", str(converge), "-i", INVENTORY, "--limit", NODE)
        second = ("ansible-playbook", str(template), "-i", INVENTORY, "--limit", NODE)
        run(*first, "-e", "first=true")
        run(*second)
        idle = place / "idle.yml"
        idle.write_text("- hosts: kos\n  gather_facts: false\n  tasks: []\n")
        runs = [(run(*first), run(*second), run("ansible-playbook", str(idle), "-i", INVENTORY)) for _ in range(times)]
    # Both start Ansible; what is compared is what the files cost.
    wall = [(b.wall - idle.wall) / (a.wall - idle.wall) for a, b, idle in runs]
    cpu = [(b.cpu - idle.cpu) / (a.cpu - idle.cpu) for a, b, idle in runs]
    return Result(
        f"{FILES} template tasks / converge of {FILES} unchanged files",
        "≥ 50 wall",
        wall,
        cpu,
        "start-up of Ansible taken off both",
    )


def _write_plays(place: Path) -> tuple[Path, Path]:
    files = {f"tree/etc/kos/bench/{number}": f"{number} host @kos:hostname@\n".encode() for number in range(FILES)}
    rows = [
        {"path": name.removeprefix("tree"), "source": name, "mode": "0644", "owner": "root", "group": "root",
         "service": "bench", "tier": 0, "phase": "tier", "units": []}
        for name in files
    ]  # fmt: skip
    manifest = {
        "format": 1, "profile": "bench", "environment": "bench", "storage": None, "services": [
            {"name": "bench", "summary": "", "tier": 0, "capabilities": [], "units": [], "probe": None, "user": None,
             "hooks": {"user": None, "pre_init": [], "post_init": [], "exit": []}, "backup": None, "reasons": [],
             "requires": [], "substrate": "deb"}],
        "unavailable": [], "files": rows, "units": [], "packages": [], "users": [], "secrets": [], "ports": [],
        "requires": {},
    }  # fmt: skip
    rows.append(
        {**rows[0], "path": "/etc/sysusers.d/kos.conf", "source": "tree/etc/sysusers.d/kos.conf", "phase": "packages"}
    )
    generation = Generation.of(manifest, {**files, "tree/etc/sysusers.d/kos.conf": b""})
    (place / "archive").write_bytes(generation.archive())
    converge = place / "converge.yml"
    converge.write_text(CONVERGE.format(id=generation.id, archive=place / "archive"))
    (place / "file.j2").write_text("{{ item }} host {{ inventory_hostname }}\n")
    template = place / "template.yml"
    template.write_text(TEMPLATE.format(source=place / "file.j2", count=FILES))
    return converge, template


def memory() -> list[str]:
    """Peak resident memory of a no-change run: the largest process on the controller, and on the node."""
    site()
    controller = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    script = (
        "import resource, subprocess; subprocess.run(['python3', '-I', '-B', '/var/lib/kos/current/node', 'doctor'],"
        " stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)"
    )
    node = int(ssh(f'python3 -c "{script}"'))
    return [
        f"controller, largest process so far: {controller} MB",
        f"node, comparing itself with its generation: {node} MB",
    ]


def main() -> None:
    """Run every comparison and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="pairs of each comparison")
    times = parser.parse_args().n
    try:
        results = [fresh_converge(times), no_change(times)]
        used = memory()
        # A run of 300 template tasks takes minutes, and its ratio is far from any goal: one pair says enough.
        results.append(unchanged_files(1))
    finally:
        run("kai", "lab", "down")
    table = Table("comparison", "goal", "wall: median (min–max)", "cpu: median (min–max)", "", box=None, pad_edge=False)
    for row in results:
        table.add_row(row.name, row.goal, _spread(row.wall), _spread(row.cpu), row.note)
    console = Console(width=160)
    console.print(f"kOS benchmarks: {times} pairs each, in turn, on {os.cpu_count()} cores\n")
    console.print(table)
    console.print("\nPeak memory", *used, sep="\n  ")


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"


if __name__ == "__main__":
    main()
