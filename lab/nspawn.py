# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver `nspawn`: an overlay on the cached root, booted in a control group and mounts of the node's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import cgroup, network
from .command import PATH, attempt
from .errors import LabError
from .identity import Lab
from .state import Node

BOOT_SECONDS = 90.0
_BOOT = Path(__file__).with_name("boot-node.sh")


def link(node: Node) -> str:
    """The node's interface, as a .network file begins."""
    del node
    return "[Match]\nName=host0\n"


def start(lab: Lab, node: Node) -> None:
    """Switch the node on and return at once."""
    disk = lab.node_var(node.name)
    disk.mkdir(parents=True, exist_ok=True)
    disk.chmod(0o700)  # the set-user-ID programs of a node are not for the users of this machine
    keeper = cgroup.make(f"{lab.node_cgroup(node.name)}/boot")
    container = cgroup.make(f"{lab.node_cgroup(node.name)}/container")
    parameters = {
        "NAME": node.name,
        "BRIDGE": network.BRIDGE,
        "ROOT": node.root,
        "DISK": str(disk),
        "SEED": str(lab.node_run(node.name) / "seed"),
        "SIZE": node.memory_backed or "",
        "CGROUP": str(container),
        "PATH": PATH,
    }
    private = ["unshare", "--mount", "--propagation", "slave", "sh", str(_BOOT)]
    command = cgroup.inside(keeper, network.within(lab, private))
    with (lab.node_run(node.name) / "console.log").open("wb") as log:
        # Away from our session, and nobody's child: it outlives this command, and Ctrl-C of it.
        subprocess.run(
            ["setsid", "--fork", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=parameters,
            check=True,
        )


def settle(lab: Lab, node: Node) -> None:
    """A new node begins with its identity: nothing is left to do."""
    del lab, node


def leader(lab: Lab, name: str) -> int:
    """The process id, here, of the node's first process. Raises LabError where it is off."""
    procs = cgroup.path(f"{lab.node_cgroup(name)}/container/payload/init.scope/cgroup.procs")
    try:
        return int(procs.read_text().split()[0])
    except (OSError, IndexError) as error:
        raise LabError(f"node {name} is off") from error


def reset(lab: Lab, node: Node) -> None:
    """Restart the node without asking it. Raises LabError."""
    cgroup.remove(lab.node_cgroup(node.name))
    start(lab, node)


def shell(lab: Lab, node: Node, line: str, stdin: str) -> bool:
    """Run a line in the running node; not by ssh, which it may have closed. Whether it went well."""
    inside = ["nsenter", f"--target={leader(lab, node.name)}", "--mount", "--root", "--wd"]
    return attempt([*inside, "sh", "-c", line], stdin=stdin).returncode == 0
