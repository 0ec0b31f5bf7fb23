# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles and services: what each brings, what it needs, and whether this machine is enough. Slow: seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils import assemble, layers, substrates
from ansible_collections.kind.kos.plugins.plugin_utils.assemble import Planned
from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import Catalogue, load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.hardware import KindOfHardware
from ansible_collections.kind.kos.plugins.plugin_utils.manifest import Service
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Services
from ansible_collections.kind.kos.plugins.plugin_utils.resolver import (
    CORE_CAPABILITIES,
    DESCRIPTIVE,
    Plan,
    memory_mb,
    runs_for,
)

from .. import resolving
from ..hardware.facts import facts
from ..hardware.model import Machine
from .draft import Draft

# What every node has, and what no service answers.
_FIXED = {*CORE_CAPABILITIES, *DESCRIPTIVE}


@dataclass(frozen=True)
class Offer:
    """A service that can be had, for a capability; `asked`: the profile asks for it.

    `instead`: what runs in its place here; empty where it runs itself, None where nothing does. `memory_mb` is of
    what runs, and 0 where that is counted with another offer already.
    """

    capability: str
    name: str
    summary: str
    memory_mb: int
    asked: bool
    instead: str | None = ""


def profiles() -> list[str]:
    """Names of profiles and modes."""
    return sorted(layers.known_names(assemble.COLLECTION / "configs"))


def planned(draft: Draft, machine: Machine, profile: str) -> Planned:
    """What would run here. Raises ConfigurationError."""
    accepted = frozenset(draft.get("accept_shortfall", []))
    chosen = draft.get("storage.disk.serial"), draft.get("storage.disk.path")
    seen = facts(machine, _disk_gb(machine, chosen))
    return resolving.planned(profile, draft.get("environment"), draft.get("settings", {}), seen, accepted)


def _disk_gb(machine: Machine, chosen: tuple[str | None, str | None]) -> int:
    """The size of the disk that was chosen, else of the largest."""
    serial, path = chosen
    disks = [disk for disk in machine.disks if not disk.medium]
    named = [disk for disk in disks if (serial and disk.serial == serial) or (path and disk.path == path)]
    return max((disk.size for disk in named or disks), default=0) // 10**9


def offers(machine: Machine, profile: str, environment: str | None = None) -> list[Offer]:
    """Every service to add or to drop: those that the profile asks for first, then what else runs on this machine."""
    asked = wanted(profile, environment)
    catalogue = _catalogue()
    plan = planned(Draft(), machine, profile).plan
    first = list(_asked_for(asked, catalogue, plan))
    running = {service.name for service in plan.services}
    kind = plan.kind
    rest = [
        Offer(capability, name, service.summary, memory_mb(service), False)
        for name, service in sorted(catalogue.services.items())
        for capability in service.provides
        if capability in Services.model_fields and capability not in _FIXED
        and name not in running and (capability, name) not in asked and _runs(service, catalogue, kind)
    ]  # fmt: skip
    return [*first, *sorted(rest, key=lambda one: (one.capability, one.name))]


def wanted(profile: str, environment: str | None = None) -> list[tuple[str, str]]:
    """(capability, service) as the profile has them."""
    return list(_rows(_base(profile, environment)))


def changed(profile: str, chosen: list[tuple[str, str]], environment: str | None = None) -> dict[str, Any]:
    """The layer `services` that makes the profile ask for exactly these; empty where it does so itself."""
    base = _base(profile, environment)
    layer: dict[str, Any] = {}
    for capability in dict.fromkeys([*base, *(capability for capability, _name in chosen)]):
        if capability in DESCRIPTIVE:
            continue
        names = [name for of, name in chosen if of == capability]
        before = base.get(capability, [])
        if names != (before if isinstance(before, list) else [before]):
            one = len(names) == 1 and not isinstance(before, list)
            layer[capability] = (names[0] if one else names) if names else None
    return layer


@cache
def _base(profile: str, environment: str | None) -> dict[str, Any]:
    deployment = layers.load_deployment(assemble.COLLECTION / "configs", profile, environment)
    return {key: value for key, value in deployment.settings.get("services", {}).items() if value is not None}


def _rows(services: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for capability, value in services.items():
        if capability not in DESCRIPTIVE:
            yield from ((capability, name) for name in (value if isinstance(value, list) else [value]))


@cache
def _catalogue() -> Catalogue:
    return load_catalogue(assemble.COLLECTION / "services", assemble.site_lock(assemble.COLLECTION / "configs"))


def _runs(service: Service, catalogue: Catalogue, kind: KindOfHardware) -> bool:
    return service.instead is None and substrates.obstacle(service, kind, catalogue.images) is None


def _asked_for(rows: list[tuple[str, str]], catalogue: Catalogue, plan: Plan) -> Iterator[Offer]:
    counted = set()
    for capability, name in rows:
        own = catalogue.service(name)
        runs = runs_for(name, plan)
        if runs is None:
            yield Offer(capability, name, own.summary, 0, True, None)
        else:
            memory = 0 if runs.name in counted else memory_mb(runs.manifest)
            counted.add(runs.name)
            yield Offer(capability, name, own.summary, memory, True, "" if runs.name == own.name else runs.name)
