# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose lab this is: every name the lab gives to anything follows from the checkout, so two never collide."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from pathlib import Path

from .errors import UsageError

CHECKOUT = Path(__file__).resolve().parents[1]
RUN = Path("/run/kos-lab")
VAR = Path("/var/lib/kos-lab")
CACHE = Path("/var/cache/kos-lab")

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")
# An interface name ends at 15 characters and the node's bridge port is called vb-NAME.
_NODE = re.compile(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?")


@dataclass(frozen=True)
class Lab:
    """One checkout's lab and the names that belong to it alone."""

    id: str
    checkout: Path

    @property
    def netns(self) -> str:
        """The network namespace, as `ip netns` lists it."""
        return f"kos-{self.id}"

    @property
    def netns_path(self) -> Path:
        """The namespace as a file, for `nsenter --net=`."""
        return Path("/run/netns", self.netns)

    @property
    def cgroup(self) -> str:
        """The control group that holds every process of this lab."""
        return f"kos-lab-{self.id}"

    @property
    def run(self) -> Path:
        """What does not outlive a reboot: sockets, keys, logs."""
        return RUN / self.id

    @property
    def var(self) -> Path:
        """State and the nodes' disks."""
        return VAR / self.id

    def node_cgroup(self, name: str) -> str:
        """The control group that holds every process of one node."""
        return f"{self.cgroup}/node-{name}"

    def node_run(self, name: str) -> Path:
        """The run files of one node."""
        return self.run / "nodes" / name

    def node_var(self, name: str) -> Path:
        """The disk of one node."""
        return self.var / "nodes" / name


def identify(environ: Mapping[str, str] = os.environ, checkout: Path = CHECKOUT) -> Lab:
    """The lab of a checkout, or the one KOS_LAB_ID names. Raises UsageError on a malformed name."""
    lab_id = environ.get("KOS_LAB_ID") or hashlib.sha256(os.fsencode(checkout)).hexdigest()[:8]
    if not _ID.fullmatch(lab_id):
        raise UsageError(f"KOS_LAB_ID '{lab_id}': use up to 20 of a-z, 0-9 and -, beginning with a letter or digit")
    return Lab(lab_id, checkout)


def check_node_name(name: str) -> str:
    """`name`, if a node can have it. Raises UsageError."""
    if not _NODE.fullmatch(name):
        raise UsageError(f"node name '{name}': use up to 12 of a-z, 0-9 and -, beginning with a letter")
    return name


def subnet4(lab_id: str, taken: Iterable[IPv4Network] = ()) -> IPv4Network:
    """The lab's IPv4 subnet: 10.64-191.x.0/24 by hash, the next one that overlaps nothing in `taken`."""
    occupied = list(collapse_addresses(taken))
    first = int.from_bytes(hashlib.sha256(lab_id.encode()).digest()[:2], "big")
    for step in range(1 << 15):
        number = (first + step) % (1 << 15)
        subnet = IPv4Network((f"10.{64 + (number >> 8)}.{number & 255}.0", 24))
        if not any(subnet.overlaps(other) for other in occupied):
            return subnet
    # Someone routes all of 10/8: inside the lab its own subnet wins, which hides 256 addresses of theirs.
    return IPv4Network((f"10.{64 + (first % (1 << 15) >> 8)}.{first & 255}.0", 24))


def subnet6(lab_id: str) -> IPv6Network:
    """The lab's IPv6 subnet: a unique local prefix (RFC 4193) by hash."""
    prefix = b"\xfd" + hashlib.sha256(lab_id.encode()).digest()[:5]
    return IPv6Network((int.from_bytes(prefix.ljust(16, b"\0"), "big"), 64))
