# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as an Ansible inventory."""

from __future__ import annotations

from typing import Any

from . import ssh
from .identity import Lab
from .state import Node, State

GROUP = "kos"


def listing(lab: Lab, state: State | None) -> dict[str, Any]:
    """What Ansible expects of `--list`: the group with every node that has booted, and their variables."""
    nodes = [node for node in state.nodes.values() if node.ready] if state else []
    hostvars = {node.name: variables(lab, node) for node in nodes}
    return {"_meta": {"hostvars": hostvars}, GROUP: {"hosts": list(hostvars)}}


def variables(lab: Lab, node: Node) -> dict[str, Any]:
    """The variables of one node."""
    return {
        "ansible_host": node.address,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(ssh.key(lab)),
        "ansible_ssh_common_args": ssh.common_args(lab),
        "ansible_python_interpreter": "/usr/bin/python3",
        "kos_lab_address6": node.address6,
        "kos_lab_network_namespace": lab.netns,
    }
