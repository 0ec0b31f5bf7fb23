# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One node: from bare to healthy, nothing to do, and many files, each beside a peer or a floor."""

from __future__ import annotations

import json
import resource
import tempfile
from pathlib import Path

from measure import INVENTORY, NODE, Result, Run, pairs, run, ssh

from ansible_collections.kind.kos.plugins.plugin_utils.generation import Generation

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
