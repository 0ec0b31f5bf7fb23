# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that are fine one by one and cannot hold together. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .faults import Fault
from .layers import Deployment
from .syntax import KeyPath, dotted

Setting = tuple[str, Any]

# The second of each pair cannot be had while the first says so.
EXCLUDE: tuple[tuple[Setting, Setting], ...] = (
    (("federation.klp_enabled", False), ("federation.test_network", True)),
    (("federation.klp_enabled", False), ("federation.public_registry", True)),
    (("federation.klp_enabled", False), ("federation.private_network", True)),
    (("federation.klp_enabled", False), ("federation.discovery", "mesh")),
    (("federation.klp_enabled", False), ("federation.discovery", "public")),
    (("federation.discovery", "local_only"), ("federation.public_registry", True)),
    (("scaling.horizontal", False), ("scaling.auto_scale", True)),
    (("orchestration.kubernetes", "none"), ("services.orchestrator", "kubernetes")),
    (("orchestration.kubernetes", "none"), ("services.orchestrator", "k3s")),
    (("security.auth", "none"), ("security.authentication.mfa_required", True)),
    (("services.local_only", True), ("federation.public_registry", True)),
)

# Switched off by the first, asked for by a capability that names it.
SWITCHES: dict[str, tuple[str, str]] = {
    "monitoring.metrics.prometheus.enabled": ("monitoring", "prometheus"),
    "monitoring.metrics.grafana.enabled": ("monitoring", "grafana"),
    "monitoring.alerting.alertmanager.enabled": ("monitoring", "alertmanager"),
    "monitoring.logging.loki.enabled": ("logging", "loki"),
    "monitoring.logging.elasticsearch.enabled": ("logging", "elasticsearch"),
    "monitoring.tracing.jaeger.enabled": ("tracing", "jaeger"),
}


def contradictions(deployment: Deployment) -> Iterator[Fault]:
    """Every pair of settings that cannot both hold, told at the line of the second."""
    for (first, off), (second, on) in EXCLUDE:
        if _at(deployment, first) == off and on in _listed(_at(deployment, second)):
            yield _fault(deployment, second, on, first, off)
    for switch, (capability, name) in SWITCHES.items():
        asked = f"services.{capability}"
        if _at(deployment, switch) is False and name in _listed(_at(deployment, asked)):
            yield _fault(deployment, asked, name, switch, False)


def _fault(deployment: Deployment, key: str, value: Any, other: str, says: Any) -> Fault:
    listed = _at(deployment, key)
    path: KeyPath = (*_path(key), listed.index(value)) if isinstance(listed, list) else _path(key)
    message = f"{_plain(value)} cannot be had with {other}: {_plain(says)} ({deployment.place(_path(other))})"
    return Fault(message, deployment.place(path), dotted(path), "change one of the two")


def _at(deployment: Deployment, key: str) -> Any:
    value: Any = deployment.settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _path(key: str) -> tuple[str, ...]:
    return tuple(key.split("."))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
