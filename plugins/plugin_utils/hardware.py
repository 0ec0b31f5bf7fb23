# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a machine, and whether it suffices for a profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field

from .models import Strict
from .profile import Minimum

Resource = Literal["cpu", "memory", "disk", "gpu", "network"]
RESOURCES: tuple[Resource, ...] = ("cpu", "memory", "disk", "gpu", "network")

# Firmware and file systems keep a few per cent: a machine sold with 8 GB reports about 7.6 GiB.
TOLERANCE = 0.90


class OperatingSystem(Strict):
    """As ``/etc/os-release`` has it: ``debian`` and ``13``."""

    id: str
    version: str


class Facts(Strict):
    """The hardware facts of one machine; what the node's ``facts`` verb prints."""

    os: OperatingSystem
    architecture: str
    cpu: int = Field(ge=0, le=1 << 20, description="cores")
    memory_mb: int = Field(ge=0, le=1 << 40)
    disk_gb: int = Field(ge=0, le=1 << 40, description="size of the file system that holds /var/lib")
    gpus: list[str] = []
    network_mbps: int | None = Field(default=None, description="link speed, null where unknown")
    disk_encrypted: bool = False
    shares_kernel: bool = Field(default=False, description="a container, whose kernel is its host's")


@dataclass(frozen=True)
class KindOfHardware:
    """The facts that may change a plan; equal kinds share one plan and one generation."""

    architecture: str
    gpu: bool
    air_gapped: bool = False
    shares_kernel: bool = False

    @classmethod
    def of(cls, facts: Facts, air_gapped: bool = False) -> KindOfHardware:
        """The kind that `facts` belong to; the Internet comes and goes, so that is said, not observed."""
        return cls(facts.architecture, bool(facts.gpus), air_gapped, facts.shares_kernel)


@dataclass(frozen=True)
class Shortfall:
    """A resource below its minimum, and whether the operator accepted that."""

    what: Resource
    need: str
    have: str
    accepted: bool

    def as_dict(self) -> dict[str, Any]:
        """The shortfall as plain data."""
        return asdict(self)


def memory(megabytes: int) -> str:
    """Memory as it is sold, in powers of two: ``512 MB``, ``15.5 GB``. Every door says it so."""
    return f"{megabytes} MB" if megabytes < 1024 else f"{megabytes / 1024:.1f}".removesuffix(".0") + " GB"


def shortfalls(facts: Facts, minimum: Minimum, accepted: set[str]) -> list[Shortfall]:
    """Every row of `minimum` that `facts` do not meet; an unknown link speed is not held against a machine."""
    rows: list[tuple[Resource, int | None, int | None, Callable[[int], str]]] = [
        ("cpu", minimum.cpu, facts.cpu, lambda count: f"{count} cores"),
        ("memory", minimum.memory_mb, facts.memory_mb, memory),
        ("disk", minimum.disk_gb, facts.disk_gb, lambda size: f"{size} GB"),
        ("network", minimum.network_mbps, facts.network_mbps, lambda rate: f"{rate} Mbit/s"),
    ]
    found = []
    for what, need, have, said in rows:
        slack = 1.0 if what == "cpu" else TOLERANCE
        if need is not None and have is not None and have < need * slack:
            needed = said(need)
            if minimum.distributed and what != "network":
                needed = f"{needed} over the whole cluster"
            found.append(Shortfall(what, needed, said(have), what in accepted))
    if minimum.gpu and not facts.gpus:
        found.append(Shortfall("gpu", "a GPU", "none", "gpu" in accepted))
    return found


def unsupported(facts: Facts) -> str | None:
    """Why this machine cannot become a node at all, or None."""
    system = f"{facts.os.id} {facts.os.version}".strip()
    if (facts.os.id, facts.os.version.split(".")[0]) != ("debian", "13"):
        return f"this machine runs {system}; kOS nodes are Debian 13: reinstall it or name another machine"
    if facts.architecture not in ("amd64", "arm64"):
        return f"this machine is {facts.architecture}; kOS nodes are amd64 or arm64"
    return None
