# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node: its identity, and what the two drivers have in common. nspawn.py and vm.py are what they have not."""

from __future__ import annotations

import os
import shutil
import time
from ipaddress import IPv4Network
from pathlib import Path
from types import ModuleType

from . import cgroup, network, nspawn, slirp, ssh, vm, vm_image
from .command import attempt
from .errors import LabError
from .identity import Lab
from .state import Node, State

DRIVERS: dict[str, ModuleType] = {"nspawn": nspawn, "vm": vm}
_HOSTS_BEGIN, _HOSTS_END = "# nodes of this lab", "# end of this lab"
# Through stdin, so that nothing of the node's own in the file is lost.
_WRITE_HOSTS = f"sed -i '/^{_HOSTS_BEGIN}/,/^{_HOSTS_END}/d' /etc/hosts && cat >> /etc/hosts"


def running(lab: Lab, name: str) -> bool:
    """Whether the node is on."""
    return cgroup.populated(lab.node_cgroup(name))


def prepare(lab: Lab, state: State, name: str, driver: str, root: Path, memory_backed: str | None = None) -> Node:
    """Write down a new node's identity and the files it begins with. Raises LabError."""
    remove(lab, name)
    address, address6 = state.free_addresses()
    identity = lab.node_run(name) / "ssh_host_ed25519_key"
    ssh.make_key(identity, name)
    host_key = " ".join(identity.with_suffix(".pub").read_text().split()[:2])
    node = Node(name, address, address6, str(root), host_key, memory_backed, driver)
    state.nodes[name] = node
    _seed(lab, state, node, identity)
    return node


def _seed(lab: Lab, state: State, node: Node, identity: Path) -> None:
    prefix = IPv4Network(state.subnet).prefixlen
    authorized = ssh.key(lab).with_suffix(".pub").read_text()
    files = {
        "etc/hostname": (0o644, f"{node.name}\n"),
        "etc/hosts": (0o644, _LOCAL_HOSTS.format(name=node.name) + hosts_block(state)),
        "etc/machine-id": (0o444, f"{os.urandom(16).hex()}\n"),
        "etc/resolv.conf": (0o644, f"nameserver {slirp.NAMESERVER}\n"),
        "etc/ssh/ssh_host_ed25519_key": (0o600, identity.read_text()),
        "etc/ssh/ssh_host_ed25519_key.pub": (0o644, identity.with_suffix(".pub").read_text()),
        "etc/systemd/network/10-host0.network": (0o644, _network(node, state.gateway, prefix)),
        "root/.ssh/authorized_keys": (0o600, authorized),
    }
    if node.driver == "nspawn":
        # The node's share of the control groups has no `pids` controller.
        files["etc/containers/containers.conf.d/lab.conf"] = (0o644, "[containers]\npids_limit = 0\n")
    for name, (mode, content) in files.items():
        path = lab.node_run(node.name) / "seed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
    (lab.node_run(node.name) / "seed/root/.ssh").chmod(0o700)


_LOCAL_HOSTS = """\
127.0.0.1 localhost
127.0.1.1 {name}
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""


def hosts_block(state: State) -> str:
    """The lines of /etc/hosts by which nodes know each other."""
    lines = [f"{address} {node.name}" for node in state.nodes.values() for address in (node.address, node.address6)]
    return "\n".join([_HOSTS_BEGIN, *lines, _HOSTS_END, ""])


def _network(node: Node, gateway: str, prefix: int) -> str:
    # No wait for duplicate addresses: the lab gives each out once. IPv6 ends at the bridge.
    return (
        f"{DRIVERS[node.driver].link(node)}\n"
        f"[Network]\nGateway={gateway}\nIPv6AcceptRA=no\nLinkLocalAddressing=ipv6\n\n"
        f"[Address]\nAddress={node.address}/{prefix}\n\n"
        f"[Address]\nAddress={node.address6}/64\nDuplicateAddressDetection=none\n"
    )


def start(lab: Lab, node: Node) -> None:
    """Switch the node on and return at once; `wait` says when it is there."""
    DRIVERS[node.driver].start(lab, node)


def boot_seconds(node: Node) -> float:
    """How long the node may take to boot."""
    return float(DRIVERS[node.driver].BOOT_SECONDS)


def last_words(lab: Lab, name: str) -> str:
    """The end of what the node, and what runs it, printed."""
    return vm_image.last_words(lab.node_run(name))


def wait(lab: Lab, node: Node) -> str:
    """Wait until the node has booted and ssh answers; gives systemd's word for it (`running`). Raises LabError."""
    patience = boot_seconds(node)
    deadline = time.monotonic() + patience
    DRIVERS[node.driver].settle(lab, node)
    port = network.within(lab, ["nc", "-z", "-w", "1", node.address, "22"])
    ask = ["timeout", str(int(patience)), "systemctl", "is-system-running", "--wait"]
    login = ssh.argv(lab, node, ask, "-q", "-o", "ConnectTimeout=20")
    while time.monotonic() < deadline:
        if attempt(port).returncode == 0:
            said = attempt(login).stdout.strip()
            if said:
                return said
        elif not running(lab, node.name):
            break
        time.sleep(0.05)
    raise LabError(f"node {node.name} did not boot:\n{last_words(lab, node.name)}")


def write_hosts(lab: Lab, state: State, name: str) -> bool:
    """Tell a running node who its peers are. False where its disk is full."""
    node = state.nodes[name]
    return bool(DRIVERS[node.driver].shell(lab, node, _WRITE_HOSTS, hosts_block(state)))


def stop(lab: Lab, name: str) -> None:
    """Cut the node's power: its processes and mounts are gone, its disk stays. Raises LabError."""
    cgroup.remove(lab.node_cgroup(name))
    vm.release(lab, name)


def remove(lab: Lab, name: str) -> None:
    """Cut the node's power and throw it away."""
    stop(lab, name)
    for folder in (lab.node_var(name), lab.node_run(name)):
        if folder.exists():
            shutil.rmtree(folder)
