# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How this machine reaches the nodes: one key a lab, host keys known beforehand, no first-contact question."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from .command import run
from .identity import Lab
from .state import Node, State


def key(lab: Lab) -> Path:
    """The private key that opens every node of the lab."""
    return lab.run / "ssh" / "id_ed25519"


def known_hosts(lab: Lab) -> Path:
    """The host keys of the lab's nodes, apart from the user's own."""
    return lab.run / "ssh" / "known_hosts"


def options(lab: Lab) -> list[str]:
    """The options of ssh that reach a node of the lab, by IPv4 or IPv6 address. Only root may enter its network."""
    return [
        "-o", f"ProxyCommand=nsenter --net={lab.netns_path} nc %h %p",
        "-o", f"UserKnownHostsFile={known_hosts(lab)}",
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes",
        "-o", "IdentitiesOnly=yes",
    ]  # fmt: skip


def common_args(lab: Lab) -> str:
    """The same, as Ansible's `ansible_ssh_common_args`."""
    return shlex.join(options(lab))


def argv(lab: Lab, node: Node, command: Sequence[str] = (), *more: str) -> list[str]:
    """The command line that runs `command` on `node`, or a login shell. `more` are further options of ssh.

    One word is a line for the node's shell; several are a program and its arguments.
    """
    # A node that reboots takes its network along without a good-bye: 15 s of silence end the session.
    alive = ["-o", "ServerAliveInterval=5"]
    line = ["ssh", "-F", "/dev/null", *options(lab), *alive, "-i", str(key(lab)), *more, f"root@{node.address}"]
    if not command:
        return line
    return [*line, "--", command[0] if len(command) == 1 else shlex.join(command)]


def make_key(path: Path, comment: str) -> None:
    """Make an ed25519 key pair at `path` unless there is one."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def write_known_hosts(lab: Lab, state: State) -> None:
    """Write down the host keys of all nodes, under their names and both addresses."""
    lines = [f"{node.name},{node.address},{node.address6} {node.host_key}\n" for node in state.nodes.values()]
    known_hosts(lab).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    known_hosts(lab).write_text("".join(lines))
