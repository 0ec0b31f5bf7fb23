# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Up and down: what the commands do, in order, from what is there and not from what was."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..plugins.plugin_utils.apt import AptConfiguration
from . import base_root, cache, cgroup, disk, host, lock, network, node, slirp, ssh, state, traffic, vm, vm_image
from .cache import Say
from .errors import UsageError
from .identity import Lab, check_node_name
from .state import Node, State

DRIVER = "nspawn"


def up(
    lab: Lab,
    names: Sequence[str],
    memory_backed: str | None = None,
    driver: str | None = None,
    say: Say = print,
) -> State:
    """Switch on the named nodes, making what is missing; those that are on stay as they are.

    Of the nodes made now, `driver` says what they are (nspawn where it is not given), and `memory_backed` the size (as
    tmpfs takes it: 512M) of a disk in memory.
    Raises HostError where this machine cannot, LabError where something fails.
    """
    for name in names:
        check_node_name(name)
    if driver not in (None, *node.DRIVERS):
        raise UsageError(f"no driver '{driver}' (there are: {', '.join(node.DRIVERS)})")
    if driver == "vm" and memory_backed:
        raise UsageError("a disk in memory is for nodes of the nspawn driver; leave --memory-backed or --driver away")
    packages = host.require(host.survey())
    with lock.held(lab):
        current = _living(lab, say)
        known = {name: _known(current, name, driver, memory_backed) for name in names}
        root = None if all(known.values()) else _root(lab, driver, packages, say)
        if current is None:
            current = _new(lab)
        for name in names:
            if root and not known[name]:
                current.nodes.pop(name, None)
                node.prepare(lab, current, name, driver or DRIVER, root, memory_backed)
                state.save(lab, current)
        begun = [_begin(lab, current.nodes[name]) for name in names]
        _finish(lab, current, [fresh for fresh in begun if fresh], say)
    return current


def _living(lab: Lab, say: Say) -> State | None:
    """The state of a lab that is really there; what is left of one that is not, is swept."""
    current = state.load(lab)
    if current and network.exists(lab) and slirp.running(lab):
        return current
    if _sweep(lab):
        say("removed what an earlier run left")
    return None


def _new(lab: Lab) -> State:
    current = network.new_state(lab)
    ssh.make_key(ssh.key(lab), f"kos-lab-{lab.id}")
    network.make(lab, current)
    state.save(lab, current)
    return current


def _known(current: State | None, name: str, driver: str | None, memory_backed: str | None) -> Node | None:
    """The node of this name, once it has booted. Raises UsageError where it is another than is asked for."""
    known = current.nodes.get(name) if current else None
    if known is None or not known.ready:
        return None
    if driver not in (None, known.driver) or memory_backed not in (None, known.memory_backed):
        raise UsageError(f"node {name} exists with another driver or disk; `kai lab down {name}` removes it")
    return known


def _root(lab: Lab, driver: str | None, packages: AptConfiguration, say: Say) -> Path:
    return vm_image.ensure(lab, packages, say) if driver == "vm" else base_root.ensure(lab, packages, say)


def _begin(lab: Lab, wanted: Node) -> Node | None:
    if wanted.ready and node.running(lab, wanted.name):
        return None
    if wanted.ready:
        node.stop(lab, wanted.name)
    node.start(lab, wanted)
    return wanted


def _finish(lab: Lab, current: State, begun: list[Node], say: Say) -> None:
    if not begun:
        return
    ssh.write_known_hosts(lab, current)
    say(f"booting {', '.join(fresh.name for fresh in begun)}")
    with ThreadPoolExecutor(max_workers=8) as pool:
        words = list(pool.map(lambda fresh: node.wait(lab, fresh), begun))
    for fresh, word in zip(begun, words, strict=True):
        fresh.ready = True
        if word != "running":
            say(f"{fresh.name} says it is {word}: `kai lab ssh {fresh.name} systemctl --failed`")
    state.save(lab, current)
    _introduce(lab, current, say)


def _introduce(lab: Lab, current: State, say: Say) -> None:
    for name in current.nodes:
        if node.running(lab, name) and not node.write_hosts(lab, current, name):
            say(f"{name} could not write its /etc/hosts: it does not know all its peers by name")


def kill(lab: Lab, name: str) -> None:
    """Cut the power of one node; its disk stays, and `up` switches it on again. Raises LabError."""
    with lock.held(lab):
        node.stop(lab, state.require(lab).node(name).name)


def save(lab: Lab, name: str) -> None:
    """Keep the disk of a node that is off as it is now, for `reset`. Raises LabError."""
    with lock.held(lab):
        known = _on_disk(lab, name)
        if node.running(lab, name):
            raise UsageError(f"node {name} is on, so its disk is not at rest; `kai lab kill {name}` switches it off")
        disk.save(lab.node_var(known.name))


def reset(lab: Lab, name: str, say: Say = print) -> None:
    """Give a node the disk that `save` kept, and switch it on. Raises LabError."""
    with lock.held(lab):
        known = _on_disk(lab, name)
        if not disk.saved(lab.node_var(name)):
            raise UsageError(f"the disk of node {name} was never saved; `kai lab save {name}` does it")
        node.stop(lab, name)
        disk.reset(lab.node_var(name))
        node.start(lab, known)
        _finish(lab, state.require(lab), [known], say)


def give_disk(lab: Lab, name: str, size: str) -> None:
    """Give a virtual node that is off another disk, empty: /dev/disk/by-id/virtio-spare. Raises LabError."""
    with lock.held(lab):
        known = state.require(lab).node(name)
        if known.driver != "vm":
            raise UsageError(f"node {name} shares this machine's disks; one of the vm driver has its own")
        if node.running(lab, name):
            raise UsageError(f"node {name} is on; `kai lab kill {name}` switches it off")
        vm.give_disk(lab, known, size)


def _on_disk(lab: Lab, name: str) -> Node:
    known = state.require(lab).node(name)
    if known.memory_backed:
        raise UsageError(f"node {name} has its disk in memory, which is gone with its power")
    return known


def down(lab: Lab, names: Sequence[str] = (), say: Say = print) -> bool:
    """Remove the named nodes, or all of the lab. Gives whether there was anything. Raises LabError."""
    with lock.held(lab):
        current = state.load(lab)
        if names and current and network.exists(lab):
            known = [current.node(name).name for name in names]
            if set(known) != set(current.nodes):
                return _remove_nodes(lab, current, known, say)
        return _sweep(lab)


def _remove_nodes(lab: Lab, current: State, names: Sequence[str], say: Say) -> bool:
    for name in names:
        traffic.forget(lab, current, current.nodes[name])
        node.remove(lab, name)
        del current.nodes[name]
        state.save(lab, current)
    ssh.write_known_hosts(lab, current)
    _introduce(lab, current, say)
    return True


def _sweep(lab: Lab) -> bool:
    """Remove everything that bears this lab's name, known or not: processes first, then what they used."""
    found = network.exists(lab) or lab.var.exists() or cgroup.path(lab.cgroup).exists()
    cgroup.remove(lab.cgroup)
    network.remove(lab)
    cache.sweep()
    for folder in (lab.var, *[path for path in lab.run.glob("*") if path.name != "lock"]):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink(missing_ok=True)
    return found
