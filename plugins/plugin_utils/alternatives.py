# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node may move to by itself while it runs: a plan beside the plan for each service with a fallback. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .faults import ConfigurationError
from .resolver import Plan, PlannedService, resolve

# Why the resolver passes over the service; it stands in the reasons of what runs instead.
_BARRED = "left by this node while it ran (kai status says why)"


@dataclass(frozen=True)
class Alternative:
    """The plan without `service`, which everything that it answers survives; `instead` are what take its place.

    `gone` leave with it and `added` come; `packages` and `needs_mb` of memory are what `plan` needs beyond that.
    """

    service: PlannedService
    plan: Plan
    instead: tuple[str, ...]
    gone: tuple[PlannedService, ...]
    added: tuple[PlannedService, ...]
    packages: tuple[str, ...]
    needs_mb: int

    @property
    def staying(self) -> Plan:
        """`plan` and the services that are left: their packages, users and data stay for the way back."""
        return replace(self.plan, services=(*self.plan.services, *self.gone))

    def as_dict(self) -> dict[str, Any]:
        """What a person or a node is told of it."""
        return {
            "service": self.service.name,
            "instead": list(self.instead),
            "packages": list(self.packages),
            "needs_mb": self.needs_mb,
        }


def alternatives(plan: Plan) -> tuple[Alternative, ...]:
    """For each service of `plan`, in its order, the plan that a node moves to when the service stays sick.

    One step deep: an alternative has none itself. There is none where the profile forbids it
    (`orchestration.fallback`, `orchestration.insist`), where the fallback cannot run on this kind of machine or runs
    already, and where anything else that was asked for would go with the service.
    """
    found = (_alternative(service, plan) for service in _movable(plan))
    return tuple(entry for entry in found if entry is not None)


def _movable(plan: Plan) -> Iterator[PlannedService]:
    told = plan.deployment.settings.get("orchestration", {}).get("fallback", True)
    for service in plan.services:
        allowed = told is True or (isinstance(told, list) and set(service.capabilities) & set(told))
        if service.manifest.fallbacks and allowed:
            yield service


def _alternative(service: PlannedService, plan: Plan) -> Alternative | None:
    try:
        other = resolve(plan.deployment, plan.offered.without(service.name, _BARRED), plan.kind)
    except ConfigurationError:
        # Insisted upon, or what would take its place gets in another's way.
        return None
    before, after = ({entry.name for entry in each.services} for each in (plan, other))
    lost = {entry.requested for entry in other.unavailable} - {entry.requested for entry in plan.unavailable}
    instead = tuple(row.name for row in other.services if set(row.capabilities) & set(service.capabilities))
    answered = {capability for row in other.services for capability in row.capabilities}
    if lost or service.name in after or not set(service.capabilities) <= answered or not set(instead) - before:
        return None
    gone = tuple(row for row in plan.services if row.name not in after)
    added = tuple(row for row in other.services if row.name not in before)
    packages = tuple(sorted(set(other.packages) - set(plan.packages)))
    needs = int(replace(other, services=added).requires["memory_mb"])
    return Alternative(service, other, instead, gone, added, packages, needs)
