# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster this node belongs to, and the lines that its files have because of it.

A generation names no machine. Between ``@kos:if:cluster@`` and ``@kos:end:cluster@``, each on a line of its own, stand
lines for a member of a cluster only; ``if:alone`` is the contrary; lines of ``for:peer`` come once for each peer.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

from .files import NodeError

_BLOCKS = [
    re.compile(rb"^[ \t]*@kos:%b@[ \t]*\n(.*?)^[ \t]*@kos:end:%b@[ \t]*\n" % (begin, end), re.MULTILINE | re.DOTALL)
    for begin, end in ((b"for:peer", b"peer"), (b"if:cluster", b"cluster"), (b"if:alone", b"alone"))
]


class NotAMember(NodeError):
    """A file asks for a value that only a member of a cluster has."""


@dataclass(frozen=True)
class Member:
    """One machine of the cluster: its name in the inventory, and where its peers reach it."""

    name: str
    address: str

    def value(self, name: str) -> str:
        """`address`, `name`, `host` (the address as a URL has it) or `family` (as nftables has it)."""
        six = ipaddress.ip_address(self.address).version == 6
        values = {
            "address": self.address,
            "family": "ip6" if six else "ip",
            "host": f"[{self.address}]" if six else self.address,
            "name": self.name,
        }
        return values[name]


@dataclass(frozen=True)
class Cluster:
    """The members: this node, and its peers in the order of their names. Without a name there is no cluster."""

    name: str = ""
    own: Member | None = None
    peers: tuple[Member, ...] = ()

    @property
    def size(self) -> int:
        """How many members there are, this one included; 1 without a cluster."""
        return 1 + len(self.peers)

    @property
    def quorum(self) -> int:
        """How many members decide."""
        return self.size // 2 + 1


def of(node: dict[str, Any] | None) -> Cluster:
    """The cluster in what the controller said of this node (``node.json``)."""
    told = (node or {}).get("cluster")
    if not told:
        return Cluster()
    peers = tuple(Member(row["name"], row["address"]) for row in told["peers"])
    return Cluster(told["name"], Member(told["own"]["name"], told["own"]["address"]), peers)


def expand(content: bytes, cluster: Cluster) -> bytes:
    """`content` with each block kept, repeated or left out. Raises NotAMember for a block without an end."""
    if b"@kos:if:" not in content and b"@kos:for:" not in content:
        return content
    per_peer, member, alone = _BLOCKS
    content = per_peer.sub(lambda match: b"".join(_of_peer(match[1], peer) for peer in cluster.peers), content)
    content = member.sub(lambda match: match[1] if cluster.own else b"", content)
    content = alone.sub(lambda match: b"" if cluster.own else match[1], content)
    if any(marker in content for marker in (b"@kos:if:", b"@kos:for:", b"@kos:end:")):
        raise NotAMember("lines for a cluster have no end, or another one's")
    return content


def _of_peer(lines: bytes, peer: Member) -> bytes:
    return re.sub(
        rb"@kos:peer:(address|family|host|name)@", lambda match: peer.value(match[1].decode()).encode(), lines
    )


def value(cluster: Cluster, name: str) -> str:
    """What ``@kos:cluster:NAME@`` stands for. Raises NotAMember.

    `peers` (the addresses, apart by blanks) and `size` have an answer without a cluster too.
    """
    if name == "peers":
        return " ".join(peer.address for peer in cluster.peers)
    if name in ("size", "quorum"):
        return str(getattr(cluster, name))
    if cluster.own is None:
        raise NotAMember(f"@kos:cluster:{name}@: this node is in no cluster")
    if name == "id":
        return cluster.name
    if name in ("address", "family", "host", "name"):
        return cluster.own.value(name)
    raise NotAMember(f"@kos:cluster:{name}@ is not a value of a cluster")


def sentence(told: dict[str, Any]) -> str:
    """What a person needs to know of a cluster, from what its `cluster` command printed."""
    size, healthy, quorum = told["size"], told["healthy"], told.get("quorum")
    text = f"all {size} members are there" if healthy == size else f"{healthy} of {size} members are there"
    if quorum and healthy < quorum:
        return f"{text}, and {quorum} must be: nothing can be written"
    if quorum:
        spare = healthy - quorum
        text += f", {spare} more may be away" if spare else ", and none more may be away"
        text += f"; {told['leader']} leads" if told.get("leader") else "; they are choosing a leader"
    return f"{text}; {told['says']}" if told.get("says") else text
