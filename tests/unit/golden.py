# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every profile and mode planned on five machines, as text that a person reviews: `make golden` writes it again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils import assemble, layers
from ansible_collections.kind.kos.plugins.plugin_utils.assemble import Planned, Request

FOLDER = Path(__file__).resolve().parents[1] / "golden"
_BASE = {"os": {"id": "debian", "version": "13"}, "architecture": "amd64", "gpus": [], "network_mbps": 1000}
BIG = {**_BASE, "cpu": 32, "memory_mb": 131072, "disk_gb": 2000}
# Facts of each machine; the one without the Internet is told apart by a layer, as a person would tell it.
MACHINES = {
    "big": BIG,
    "small": {**_BASE, "cpu": 2, "memory_mb": 2048, "disk_gb": 16, "network_mbps": 100},
    "arm64 with 1 GB": {**_BASE, "architecture": "arm64", "cpu": 4, "memory_mb": 1024, "disk_gb": 16},
    "air-gapped": {**BIG, "network_mbps": None},
    "GPU": {**BIG, "gpus": ["10de:2330"]},
}
_AIR_GAPPED = FOLDER / "air_gapped.yaml"


def names() -> list[str]:
    """Every profile and mode."""
    return sorted(layers.known_names(assemble.COLLECTION / "configs"))


def golden(name: str) -> str:
    """The plan of one profile or mode on the big machine, and how those of the others differ from it."""
    plans = {machine: _planned(name, machine) for machine in MACHINES}
    lines = {machine: list(_plan(planned)) for machine, planned in plans.items()}
    parts = ["\n".join([f"# {name}", "", "big", *lines["big"]])]
    for machine in list(MACHINES)[1:]:
        gone = [f"- {line}" for line in lines["big"] if line not in lines[machine]]
        new = [f"+ {line}" for line in lines[machine] if line not in lines["big"]]
        parts.append("\n".join([f"{machine}: as big{', but' if gone or new else ''}", *gone, *new]))
    preflight = [f"  {machine}: {_preflight(planned)}" for machine, planned in plans.items()]
    return "\n\n".join([*parts, "\n".join(["preflight", *preflight])]) + "\n"


def _planned(name: str, machine: str) -> Planned:
    site = _AIR_GAPPED if machine == "air-gapped" else None
    return assemble.plan(Request(name, site=site), assemble.facts_from(MACHINES[machine], machine))


def _plan(planned: Planned) -> Iterator[str]:
    plan = planned.plan
    for service in plan.services:
        yield f"  run  {service.name} ({service.substrate}) for {', '.join(service.capabilities)}"
        yield from (f"         {reason}" for reason in service.reasons)
    yield from (f"  not  {row.requested} for {row.capability}: {row.why}" for row in plan.unavailable)
    yield from (f"  say  {row.key}: {row.value} is {row.state}: {row.says}" for row in plan.answers)
    yield from (f"  idle {key}" for key in plan.not_acted_on)
    opened = sorted(f"{port.port}/{port.protocol}" for port in plan.ports if port.exposure == "network")
    yield f"  open {' '.join(opened)}"
    needs = plan.requires
    yield f"  adds up to {needs['cpu']} cores, {needs['memory_mb']} MB, {needs['disk_mb']} MB of disk"


def _preflight(planned: Planned) -> str:
    short = [f"{row.what} needs {row.need}, has {row.have}" for row in planned.shortfalls]
    return "; ".join(short) or "suffices"


def main() -> None:
    """Write every file, and drop those of profiles that are gone."""
    for path in FOLDER.glob("*.txt"):
        path.unlink()
    for name in names():
        (FOLDER / f"{name}.txt").write_text(golden(name))


if __name__ == "__main__":
    # As a fresh checkout has it: without what was built or resolved here.
    os.environ["KOS_SITE_LOCK"] = os.devnull
    main()
