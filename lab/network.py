# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's network: a namespace with a bridge, NAT and a way out. All of it goes with the namespace."""

from __future__ import annotations

import json
from ipaddress import IPv4Network

from . import slirp
from .command import attempt, run
from .identity import RUN, Lab, subnet4, subnet6
from .state import Forward, Node, State

BRIDGE = "br0"
DEAD_END = "nowhere"
_NETNS = "/run/netns"

# `forwards`: port of this machine -> node. `cut`: nodes that reach nobody but the controller.
_RULES = f"""
table ip kos {{
  map forwards {{ type inet_service : ipv4_addr . inet_service; }}
  set cut {{ type ipv4_addr; }}
  chain pre {{ type nat hook prerouting priority -100; iifname "{slirp.TAP}" dnat to tcp dport map @forwards; }}
  chain post {{ type nat hook postrouting priority 100; oifname "{slirp.TAP}" masquerade; }}
  chain forward {{
    type filter hook forward priority 0
    oifname "{DEAD_END}" reject with icmp type admin-prohibited
    ip saddr @cut reject with icmp type admin-prohibited
    ip daddr @cut drop
  }}
}}
table bridge kos {{
  set cut {{ type ifname; }}
  chain forward {{ type filter hook forward priority 0; iifname @cut drop; oifname @cut drop; }}
}}
"""


def new_state(lab: Lab) -> State:
    """The state of a lab with no nodes yet, on subnets that this machine does not use."""
    subnet = subnet4(lab.id, routed_subnets(run(["ip", "-json", "-4", "route", "show", "table", "all"])))
    return State(lab.id, str(lab.checkout), str(subnet), str(subnet6(lab.id)))


def routed_subnets(routes: str) -> list[IPv4Network]:
    """The subnets in the output of `ip -json route` that lie in the lab's range; default routes are none."""
    named = {"default", "broadcast"}
    found = [IPv4Network(route["dst"]) for route in json.loads(routes or "[]") if route["dst"] not in named]
    return [subnet for subnet in found if subnet.prefixlen > 8]


def exists(lab: Lab) -> bool:
    """Whether the namespace is there."""
    return lab.netns_path.exists()


def make(lab: Lab, state: State) -> None:
    """Make the namespace, the bridge, the rules and the way out. Raises LabError."""
    _remember_netns_folder()
    run(["ip", "netns", "add", lab.netns])
    bridge = [
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"addr add {state.gateway}/24 dev {BRIDGE}",
        f"addr add {state.gateway6}/64 dev {BRIDGE} nodad",
        f"link set {BRIDGE} up",
        # Where packets turn while the way out is down, to be refused at once: silence would cost minutes.
        f"link add {DEAD_END} type bridge",
        f"link set {DEAD_END} up",
        f"route add default dev {DEAD_END} metric 4096",
    ]
    run(["ip", "-n", lab.netns, "-batch", "-"], stdin="\n".join(bridge) + "\n")
    run(within(lab, ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0"]))
    _nft(lab, _RULES)
    slirp.start(lab)


def within(lab: Lab, argv: list[str]) -> list[str]:
    """`argv` as a command that runs in the lab's network.

    Not `ip netns exec`: it mounts a fresh /sys without control groups, on which nspawn gives up.
    """
    return ["nsenter", f"--net={lab.netns_path}", *argv]


def remove(lab: Lab) -> None:
    """Remove the namespace, and with it all there is."""
    if exists(lab):
        run(["ip", "netns", "del", lab.netns])
    _forget_netns_folder()


def cut(lab: Lab) -> None:
    """Take the lab off the world; its nodes still reach each other."""
    run(["ip", "-n", lab.netns, "link", "set", slirp.TAP, "down"])


def restore(lab: Lab) -> None:
    """Put the lab on the world again."""
    run(["ip", "-n", lab.netns, "link", "set", slirp.TAP, "up"])
    run(["ip", "-n", lab.netns, "route", "replace", "default", "via", slirp.GATEWAY, "dev", slirp.TAP])


def cut_node(lab: Lab, node: Node) -> None:
    """Take one node off the world and off its peers; ssh from this machine still reaches it."""
    _nft(lab, _cut_elements("add", node))


def restore_node(lab: Lab, node: Node) -> None:
    """Put one node on the network again."""
    _nft(lab, _cut_elements("delete", node))


def _cut_elements(verb: str, node: Node) -> str:
    return f'{verb} element ip kos cut {{ {node.address} }}\n{verb} element bridge kos cut {{ "{port(node.name)}" }}\n'


def port(name: str) -> str:
    """The node's end at the bridge, as an interface of the lab's network."""
    return f"vb-{name}"


def add_forward(lab: Lab, node: Node, listen: str, host_port: int, node_port: int) -> Forward:
    """Make `listen`:`host_port` of this machine lead to a port of `node` (TCP). Raises LabError."""
    slirp_id = slirp.add_forward(lab, listen, host_port)
    _nft(lab, f"add element ip kos forwards {{ {host_port} : {node.address} . {node_port} }}\n")
    return Forward(listen, host_port, node.name, node_port, slirp_id)


def remove_forward(lab: Lab, forward: Forward) -> None:
    """Close a forwarded port."""
    slirp.remove_forward(lab, forward.slirp_id)
    _nft(lab, f"delete element ip kos forwards {{ {forward.host_port} }}\n")


def _nft(lab: Lab, commands: str) -> None:
    run(within(lab, ["nft", "-f", "-"]), stdin=commands)


def _remember_netns_folder() -> None:
    # The first `ip netns add` of a machine makes this folder and mounts it on itself; whoever was first says so.
    if attempt(["mountpoint", "--quiet", _NETNS]).returncode:
        (RUN / "netns-folder").touch()


def _forget_netns_folder() -> None:
    mark = RUN / "netns-folder"
    if not mark.exists() or run(["ip", "netns", "list"]).strip():
        return
    attempt(["umount", _NETNS])
    attempt(["rmdir", _NETNS])
    mark.unlink(missing_ok=True)
