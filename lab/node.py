# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node: an overlay on the cached root, booted by nspawn in a network, a control group and mounts of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from ipaddress import IPv4Network
from pathlib import Path

from . import cgroup, network, slirp, ssh
from .command import PATH, attempt
from .errors import LabError
from .identity import Lab
from .state import Node, State

_BOOT = Path(__file__).with_name("boot-node.sh")
_BOOT_TIMEOUT = 90.0
_HOSTS_BEGIN, _HOSTS_END = "# nodes of this lab", "# end of this lab"
# Through stdin, so that nothing of the node's own in the file is lost.
_WRITE_HOSTS = f"sed -i '/^{_HOSTS_BEGIN}/,/^{_HOSTS_END}/d' /etc/hosts && cat >> /etc/hosts"


def group(lab: Lab, name: str) -> str:
    """The node's control group: `boot` holds its keeper, `container` the node itself."""
    return f"{lab.cgroup}/node-{name}"


def running(lab: Lab, name: str) -> bool:
    """Whether the node is on."""
    return cgroup.populated(group(lab, name))


def prepare(lab: Lab, state: State, name: str, root: Path, memory_backed: str | None) -> Node:
    """Write down a new node's identity and the files it begins with. Raises LabError."""
    remove(lab, name)
    address, address6 = state.free_addresses()
    identity = lab.node_run(name) / "ssh_host_ed25519_key"
    ssh.make_key(identity, name)
    host_key = " ".join(identity.with_suffix(".pub").read_text().split()[:2])
    node = Node(name, address, address6, str(root), host_key, memory_backed)
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
        "[Match]\nName=host0\n\n"
        f"[Network]\nGateway={gateway}\nIPv6AcceptRA=no\nLinkLocalAddressing=ipv6\n\n"
        f"[Address]\nAddress={node.address}/{prefix}\n\n"
        f"[Address]\nAddress={node.address6}/64\nDuplicateAddressDetection=none\n"
    )


def start(lab: Lab, node: Node) -> None:
    """Switch the node on and return at once; `wait` says when it is there."""
    disk = lab.node_var(node.name)
    disk.mkdir(parents=True, exist_ok=True)
    disk.chmod(0o700)  # the set-user-ID programs of a node are not for the users of this machine
    keeper = cgroup.make(f"{group(lab, node.name)}/boot")
    container = cgroup.make(f"{group(lab, node.name)}/container")
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
    with console_log(lab, node.name).open("wb") as log:
        # Away from our session, and nobody's child: it outlives this command, and Ctrl-C of it.
        subprocess.run(
            ["setsid", "--fork", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=parameters,
            check=True,
        )


def console_log(lab: Lab, name: str) -> Path:
    """What the node and nspawn printed."""
    return lab.node_run(name) / "console.log"


def wait(lab: Lab, node: Node) -> str:
    """Wait until the node has booted and ssh answers; gives systemd's word for it (`running`). Raises LabError."""
    deadline = time.monotonic() + _BOOT_TIMEOUT
    port = network.within(lab, ["nc", "-z", "-w", "1", node.address, "22"])
    ask = ["timeout", str(int(_BOOT_TIMEOUT)), "systemctl", "is-system-running", "--wait"]
    login = ssh.argv(lab, node, ask, "-q", "-o", "ConnectTimeout=5")
    while time.monotonic() < deadline:
        if attempt(port).returncode == 0:
            said = attempt(login).stdout.strip()
            if said:
                return said
        elif not running(lab, node.name):
            break
        time.sleep(0.05)
    raise LabError(f"node {node.name} did not boot:\n{_tail(console_log(lab, node.name))}")


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def leader(lab: Lab, name: str) -> int:
    """The process id, here, of the node's first process. Raises LabError where it is off."""
    procs = cgroup.path(f"{group(lab, name)}/container/payload/init.scope/cgroup.procs")
    try:
        return int(procs.read_text().split()[0])
    except (OSError, IndexError) as error:
        raise LabError(f"node {name} is off") from error


def write_hosts(lab: Lab, state: State, name: str) -> bool:
    """Tell a running node who its peers are; not by ssh, which it may have closed. False where its disk is full."""
    inside = ["nsenter", f"--target={leader(lab, name)}", "--mount", "--root", "--wd"]
    return attempt([*inside, "sh", "-c", _WRITE_HOSTS], stdin=hosts_block(state)).returncode == 0


def stop(lab: Lab, name: str) -> None:
    """Cut the node's power: its processes and mounts are gone, its disk stays. Raises LabError."""
    cgroup.remove(group(lab, name))


def remove(lab: Lab, name: str) -> None:
    """Cut the node's power and throw it away."""
    stop(lab, name)
    for folder in (lab.node_var(name), lab.node_run(name)):
        if folder.exists():
            shutil.rmtree(folder)
