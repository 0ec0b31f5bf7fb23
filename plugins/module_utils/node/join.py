# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One substitution: ``@kos:NAME@`` in a file becomes what only this node knows."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable

from . import accounts, system
from . import cluster as clusters
from .cluster import Cluster
from .files import NodeError, Root

TOKEN = re.compile(rb"@kos:([a-z][a-z0-9_:.%-]*)@")


_NOBODY = 65534


class UnknownToken(NodeError):
    """A file asks for a value that the node does not have."""


class Joiner:
    """Fills tokens with values of this machine, each looked up once.

    `secret` maps ``service.name`` to the secret's text; only sealed files may ask for one. `cluster` is the one this
    node belongs to; a sealed file has no part of it, since what sealed it could not be compared.
    """

    def __init__(self, root: Root, secret: Callable[[str], str] | None = None, cluster: Cluster | None = None) -> None:
        self._root = root
        self._secret = secret
        self._cluster = cluster or Cluster()
        self._values: dict[str, str] = {}

    def join(self, content: bytes, sealed: bool = False) -> bytes:
        """`content` with every token filled. Raises UnknownToken."""
        if b"@kos:" not in content:
            return content
        if not sealed:
            content = clusters.expand(content, self._cluster)
        return TOKEN.sub(lambda match: self._value(match[1].decode(), sealed).encode(), content)

    def _value(self, name: str, sealed: bool) -> str:
        if name.startswith("secret:"):
            if not sealed or self._secret is None:
                raise UnknownToken(f"@kos:{name}@: secrets are joined into sealed files only")
            return self._secret(name.removeprefix("secret:"))
        if name not in self._values:
            self._values[name] = self._look_up(name)
        return self._values[name]

    def _look_up(self, name: str) -> str:
        if name.startswith("cluster:"):
            return clusters.value(self._cluster, name.removeprefix("cluster:"))
        if name == "hostname":
            return _hostname(self._root)
        if name == "addresses":
            return " ".join(addresses())
        if name == "addresses:json":
            return json.dumps(addresses())
        if name == "ssh_port":
            return _ssh_ports(self._root)
        if name == "cpus":
            return str(len(os.sched_getaffinity(0)))
        if name.startswith("uids:"):
            return _uids(self._root, name.removeprefix("uids:"))
        if name == "listen" or name.startswith("peer:"):
            # Under every substrate of a node services find each other on loopback.
            return "127.0.0.1"
        if name.startswith("memory:"):
            return str(_share_of_memory(*name.split(":")[1:]))
        raise UnknownToken(f"@kos:{name}@ is not a value this node knows")


def _uids(root: Root, user: str) -> str:
    """The ids of `user`, the subordinate ones too, as nftables writes them."""
    uid = system.Accounts(root).ids(user, "")[0]
    # Before its user is made, as while a file is only checked, a rule says nobody.
    ranges = [f"{first}-{first + count - 1}" for first, count in accounts.subordinate_ids(root, user)]
    return ", ".join([str(uid if uid >= 0 else _NOBODY), *ranges])


def memory_mb() -> int:
    """This machine's memory in MB."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        return int(stream.readline().split()[1]) // 1024


def addresses() -> list[str]:
    """This machine's global addresses, IPv4 first, in a stable order."""
    done = system.run(["ip", "-json", "address", "show", "scope", "global"], check=False)
    links = json.loads(done.stdout or b"[]")
    found = {
        entry["local"]
        for link in links
        for entry in link.get("addr_info", [])
        # Privacy addresses change by the hour and would look like drift.
        if "local" in entry and not entry.get("temporary") and not entry.get("deprecated")
    }
    return sorted(found, key=lambda address: (":" in address, address))


def _share_of_memory(share: str, floor: str = "1", ceiling: str = "1048576") -> int:
    part = memory_mb() * int(share.rstrip("%")) // 100
    return max(int(floor), min(int(ceiling), part))


def _hostname(root: Root) -> str:
    if root.path == "/":
        return socket.gethostname()
    with open(root.join("/etc/hostname"), encoding="utf-8") as stream:
        return stream.read().strip()


def _ssh_ports(root: Root) -> str:
    """The ports sshd listens on, as nftables writes them."""
    done = None
    if os.path.exists(root.join("/usr/sbin/sshd")):
        done = system.run(system.in_root(root, ["/usr/sbin/sshd", "-T"]), check=False)
    rows = (line.split() for line in done.stdout.decode().splitlines()) if done else ()
    ports = sorted({int(row[1]) for row in rows if len(row) == 2 and row[0] == "port"}) or [22]
    return str(ports[0]) if len(ports) == 1 else "{ " + ", ".join(map(str, ports)) + " }"
