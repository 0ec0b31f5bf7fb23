# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From files on the controller to a plan and its generation: the one place that reads them all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import hardware, layers
from .alternatives import alternatives
from .catalogue import load_catalogue
from .faults import Place
from .generation import Generation
from .hardware import Facts, KindOfHardware, Shortfall
from .models import parse
from .renderer import render
from .resolver import Plan, resolve

COLLECTION = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Request:
    """Which deployment: a profile or mode by name, and its layers."""

    name: str
    environment: str | None = None
    site: Path | None = None
    user: Path | None = None
    accepted: frozenset[str] = frozenset()
    configs: Path = field(default=COLLECTION / "configs")
    services: Path = field(default=COLLECTION / "services")


@dataclass(frozen=True)
class Planned:
    """A plan, and how the machine measures up to it."""

    plan: Plan
    shortfalls: list[Shortfall]
    unsupported: str | None

    @property
    def blocked(self) -> bool:
        """Whether preflight must stop: an unsupported machine, or a shortfall nobody accepted."""
        return self.unsupported is not None or any(not row.accepted for row in self.shortfalls)

    def as_dict(self) -> dict[str, object]:
        """The plan and its preflight as plain data."""
        preflight = {
            "ok": not self.blocked,
            "unsupported": self.unsupported,
            "shortfalls": [row.as_dict() for row in self.shortfalls],
        }
        moves = [entry.as_dict() for entry in alternatives(self.plan)]
        return {**self.plan.as_dict(), "alternatives": moves, "preflight": preflight}


def plan(request: Request, facts: Facts) -> Planned:
    """The plan of `request` for a machine with `facts`. Raises ConfigurationError."""
    return plans(request, {"": facts})[""]


def plans(request: Request, fleet: Mapping[str, Facts]) -> dict[str, Planned]:
    """The plan for each machine of `fleet`, resolved once a kind of hardware. Raises ConfigurationError."""
    deployment = layers.load_deployment(request.configs, request.name, request.environment, request.site, request.user)
    catalogue = load_catalogue(request.services, site_lock(request.configs))
    accepted = set(request.accepted)
    air_gapped = deployment.settings.get("networking", {}).get("air_gapped", False)
    resolved: dict[KindOfHardware, Plan] = {}
    found = {}
    for host, facts in fleet.items():
        kind = KindOfHardware.of(facts, air_gapped)
        if kind not in resolved:
            resolved[kind] = resolve(deployment, catalogue, kind)
        short = hardware.shortfalls(facts, deployment.minimum, accepted)
        found[host] = Planned(resolved[kind], short, hardware.unsupported(facts))
    return found


def groups(planned: Mapping[str, Planned]) -> list[tuple[list[str], Planned]]:
    """Hosts that share a plan and measure up to it alike, with one `Planned` for all of them."""
    found: dict[tuple[object, ...], tuple[list[str], Planned]] = {}
    for host, entry in planned.items():
        key = (id(entry.plan), tuple(entry.shortfalls), entry.unsupported)
        found.setdefault(key, ([], entry))[0].append(host)
    return list(found.values())


def generation(planned: Planned) -> Generation:
    """The generation of a plan. Raises ConfigurationError."""
    return render(planned.plan, node_code())


def site_lock(configs: Path) -> Path:
    """Where the site keeps the digests of its own images; ``KOS_SITE_LOCK`` names another file."""
    return Path(os.environ.get("KOS_SITE_LOCK") or configs / "images.lock")


def facts_from(data: dict[str, object], source: str) -> Facts:
    """Hardware facts from plain data; `source` names it in faults. Raises ConfigurationError."""
    return parse(Facts, data, lambda _path: Place(source))


def node_code() -> dict[str, bytes]:
    """The node's core as every generation carries it."""
    folder = COLLECTION / "plugins" / "module_utils" / "node"
    found = sorted(path.relative_to(folder) for path in folder.rglob("*.py"))
    code = {f"kos_node/{path.as_posix()}": (folder / path).read_bytes() for path in found}
    starter = b"import sys\n\nfrom kos_node.main import main\n\nsys.exit(main())\n"
    return {**code, "__main__.py": starter}
