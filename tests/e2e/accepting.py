# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The acceptance suite, run on a node as it stands, and what the node is made of kept beside the suite's report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from labnodes import BIN, ROOT

# The folder of this run's reports; without one nothing is kept.
_REPORTS = os.environ.get("KOS_REPORTS")
_PATIENCE = 3000


def reached(folder, name, port, options, user="kos", **variables):
    """An inventory with one machine, which a port of this one leads to."""
    path = folder / f"{name}-inventory.yml"
    host = {
        "ansible_host": "127.0.0.1", "ansible_port": port, "ansible_user": user, "ansible_become": True,
        "ansible_ssh_common_args": " ".join(map(str, options)), "ansible_python_interpreter": "/usr/bin/python3",
        **variables,
    }  # fmt: skip
    path.write_text(yaml.safe_dump({"kos": {"hosts": {name: host}}}))
    return path


def accept(inventory, node, door, *argv, suite="tests/acceptance", environment=None):
    """Run the suite on `node`, which came through `door`; what it said. `argv` are options of the suite."""
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", suite, "--door", door, *argv]
    line += [f"--hosts=ansible://{node}", f"--ansible-inventory={inventory}"]
    given = {**(environment or os.environ), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": _path()}
    done = subprocess.run(line, cwd=ROOT, env=given, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    if done.returncode:
        pytest.fail(f"{node} is not what a node is:\n{done.stdout[-6000:]}{done.stderr[-2000:]}")
    return done.stdout


def _path():
    # Ansible's programs come from where pytest does.
    return f"{BIN}{os.pathsep}{os.environ['PATH']}"


def keep(inventory, node, door, place, environment=None):
    """Write down what `node` is made of, to be compared with what other doors lead to (`make doors`)."""
    if not _REPORTS:
        return
    folder = Path(_REPORTS) / "made-of"
    line = [str(BIN / "kai"), "compare", node, "-i", str(inventory), "--save", str(folder)]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / f"{node}.json").rename(folder / f"{door}-{place}.json")
