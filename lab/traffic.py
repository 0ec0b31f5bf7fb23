# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person does to the network of a lab that is up: cut and restore it, and lead ports to nodes."""

from __future__ import annotations

from . import lock, network, state
from .errors import LabError, UsageError
from .identity import Lab
from .state import Forward, Node, State

LOOPBACK = "127.0.0.1"


def cut(lab: Lab, name: str | None = None) -> None:
    """Take the lab off the world, or one node off the world and its peers. Raises LabError."""
    _switch(lab, name, True)


def restore(lab: Lab, name: str | None = None) -> None:
    """Undo `cut` of the same. Raises LabError."""
    _switch(lab, name, False)


def _switch(lab: Lab, name: str | None, off: bool) -> None:
    with lock.held(lab):
        current = state.require(lab)
        target: State | Node = current.node(name) if name else current
        if target.cut == off:
            return
        if isinstance(target, Node):
            (network.cut_node if off else network.restore_node)(lab, target)
        else:
            (network.cut if off else network.restore)(lab)
        target.cut = off
        state.save(lab, current)


def forward(lab: Lab, name: str, host_port: int, node_port: int, listen: str = LOOPBACK) -> Forward:
    """Make `listen`:`host_port` of this machine lead to `node_port` of the node (TCP). Asking twice changes nothing.

    Raises UsageError where the port leads elsewhere already, LabError where something else has it.
    """
    with lock.held(lab):
        current = state.require(lab)
        target = current.node(name)
        for known in current.forwards:
            if known.host_port == host_port:
                if (known.listen, known.node, known.node_port) == (listen, name, node_port):
                    return known
                raise UsageError(f"port {host_port} leads to {known.node}:{known.node_port} already")
        made = network.add_forward(lab, target, listen, host_port, node_port)
        current.forwards.append(made)
        state.save(lab, current)
        return made


def forward_to_free_port(lab: Lab, name: str, node_port: int, first: int = 8443) -> Forward:
    """Lead the port that leads there already, or the first free one from `first` on, to the node.

    Raises LabError where none of twenty is free.
    """
    for known in state.require(lab).forwards:
        if (known.node, known.node_port) == (name, node_port):
            return known
    for host_port in range(first, first + 20):
        try:
            return forward(lab, name, host_port, node_port)
        except LabError as error:
            refused = error
    raise refused


def unforward(lab: Lab, host_port: int) -> None:
    """Close a forwarded port. Raises UsageError where there is none."""
    with lock.held(lab):
        current = state.require(lab)
        known = [forward for forward in current.forwards if forward.host_port == host_port]
        if not known:
            raise UsageError(f"port {host_port} is not forwarded")
        _close(lab, current, known[0])


def forget(lab: Lab, current: State, node: Node) -> None:
    """Undo what was set up for a node that goes. The caller holds the lock and saves the state."""
    for known in [forward for forward in current.forwards if forward.node == node.name]:
        _close(lab, current, known)
    if node.cut:
        network.restore_node(lab, node)


def _close(lab: Lab, current: State, forward: Forward) -> None:
    network.remove_forward(lab, forward)
    current.forwards.remove(forward)
    state.save(lab, current)
