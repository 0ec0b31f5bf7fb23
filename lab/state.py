# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab was asked to be, as JSON. What it is, it always looks at: processes, namespaces and mounts."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network, IPv6Network

from .errors import LabError, UsageError
from .identity import VAR, Lab

FORMAT = 1
# Room below for the gateway and whatever a test wants to put on the bridge by hand.
FIRST_NODE = 11
LAST_NODE = 250


@dataclass
class Node:
    """One node. `ready` once it has booted; before, it is half made and will be made again."""

    name: str
    address: str
    address6: str
    root: str
    host_key: str
    memory_backed: str | None = None
    driver: str = "nspawn"
    ready: bool = False
    cut: bool = False


@dataclass
class Forward:
    """A port of this machine that leads to a port of a node. `slirp_id` is how slirp4netns knows it."""

    listen: str
    host_port: int
    node: str
    node_port: int
    slirp_id: int


@dataclass
class State:
    """A lab that is up. The subnets are strings in CIDR notation."""

    id: str
    checkout: str
    subnet: str
    subnet6: str
    cut: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    forwards: list[Forward] = field(default_factory=list)

    @property
    def gateway(self) -> str:
        """The bridge's own IPv4 address."""
        return str(IPv4Network(self.subnet)[1])

    @property
    def gateway6(self) -> str:
        """The bridge's own IPv6 address."""
        return str(IPv6Network(self.subnet6)[1])

    def node(self, name: str) -> Node:
        """A node by name. Raises UsageError."""
        if name not in self.nodes:
            known = ", ".join(self.nodes) or "none"
            raise UsageError(f"no node '{name}' in this lab (there are: {known})")
        return self.nodes[name]

    def free_addresses(self) -> tuple[str, str]:
        """IPv4 and IPv6 for one more node. Both end alike: .11 and ::11. Raises LabError when full."""
        taken = {node.address for node in self.nodes.values()}
        for number in range(FIRST_NODE, LAST_NODE + 1):
            address = str(IPv4Network(self.subnet)[number])
            if address not in taken:
                return address, str(IPv6Network(self.subnet6)[int(str(number), 16)])
        raise LabError(f"this lab is full: {LAST_NODE - FIRST_NODE + 1} nodes")


def load(lab: Lab) -> State | None:
    """The state of `lab`; None where it is down or was never up."""
    try:
        document = json.loads((lab.var / "state.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if document.pop("format", None) != FORMAT:
        return None
    nodes = {name: Node(**node) for name, node in document.pop("nodes").items()}
    forwards = [Forward(**forward) for forward in document.pop("forwards")]
    return State(**document, nodes=nodes, forwards=forwards)


def require(lab: Lab) -> State:
    """The state of a lab that is up. Raises UsageError."""
    state = load(lab)
    if state is None:
        raise UsageError("this lab is down; `kai lab up` starts it")
    return state


def save(lab: Lab, state: State) -> None:
    """Write the state whole or not at all."""
    lab.var.mkdir(parents=True, exist_ok=True)
    path = lab.var / "state.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"format": FORMAT, **asdict(state)}, indent=1) + "\n")
    os.replace(temporary, path)


def roots_in_use() -> set[str]:
    """The cached roots under the nodes of every lab of this machine, of whatever version of kOS they are."""
    used: set[str] = set()
    for path in VAR.glob("*/state.json"):
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            nodes = json.loads(path.read_text()).get("nodes", {})
            used |= {node["root"] for node in nodes.values() if "root" in node}
    return used
