# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's one front door: where it listens, whose certificate it shows, what it passes on, and how much. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .faults import Fault
from .layers import Deployment
from .manifest import RouteManifest, Service

# Paths that the gateway answers itself.
OWN_PATHS = ("/healthz", "/ca.crt", "/status", "/status.json", "/index.html")


@dataclass(frozen=True)
class RateLimits:
    """What one client may ask; the profile's `networking.rate_limits` over these."""

    requests_per_minute: int = 600
    burst: int = 100
    connections_per_minute: int = 300
    connections: int = 100


@dataclass(frozen=True)
class Route:
    """One service behind the gateway; `upstream` is a loopback address with port, or the path of a socket."""

    service: str
    manifest: RouteManifest

    @property
    def name(self) -> str:
        """What it is called in the configuration of a gateway."""
        return (self.manifest.path or f"/{self.manifest.host}")[1:].replace("/", "_").replace("-", "_")

    @property
    def order(self) -> tuple[bool, int, str]:
        """Host names before paths, long prefixes before short ones."""
        name = self.manifest.host or self.manifest.path or ""
        return (self.manifest.host is None, -len(name), name)


@dataclass(frozen=True)
class Gateway:
    """Everything that a gateway's template needs beside the services."""

    bind: str = "all"
    https_port: int = 443
    http_port: int | None = 80
    tls: str = "internal_ca"
    public_name: str | None = None
    acme: dict[str, str] = field(default_factory=dict)
    limits: RateLimits = RateLimits()
    routes: tuple[Route, ...] = ()
    peers: tuple[str, ...] = ("127.0.0.1",)

    @property
    def domain(self) -> str:
        """What the labels of routed host names stand before; a token where only the node knows."""
        return self.public_name or "@kos:hostname@"

    @property
    def names(self) -> tuple[str, ...]:
        """The host names of the node beside its own: the public one, and those of routes."""
        hosts = [f"{route.manifest.host}.{self.domain}" for route in self.routes if route.manifest.host]
        return (*([self.public_name] if self.public_name else []), *hosts)


def listening(deployment: Deployment, faults: list[Fault]) -> Gateway:
    """Where the gateway of `deployment` listens and whose certificate it shows; contradictions go to `faults`."""
    networking = deployment.settings.get("networking", {})
    ports = networking.get("ports", {})
    moved = ports.get("frontend")
    bind = "loopback" if networking.get("host") in ("localhost", "127.0.0.1", "::1") else "all"
    public_name = networking.get("public_name")
    asked = deployment.settings.get("security", {}).get("tls")
    tls = asked or ("acme" if public_name else "internal_ca")
    faults += _tls_faults(deployment, tls, bind, moved)
    return Gateway(
        bind, moved or 443, None if moved else 80, tls, public_name, dict(networking.get("acme", {})),
        RateLimits(**networking.get("rate_limits", {})), (), tuple(networking.get("peers", ["127.0.0.1"])),
    )  # fmt: skip


def _tls_faults(deployment: Deployment, tls: str, bind: str, moved: int | None) -> Iterator[Fault]:
    networking = deployment.settings.get("networking", {})
    if tls != "acme":
        if "acme" in networking:
            place = _place(deployment, "networking", "acme")
            without = (
                "security.tls is " + tls if networking.get("public_name") else "there is no networking.public_name"
            )
            yield Fault(f"nothing asks that authority, as {without}", place, "networking.acme", "drop one of the two")
        return
    if not networking.get("public_name"):
        place = _place(deployment, "security", "tls")
        fix = "set networking.public_name, or security.tls: internal_ca"
        yield Fault("'acme' needs a name that the authority can look up", place, "security.tls", fix)
    elif bind == "loopback" or moved not in (None, 443):
        place = _place(deployment, "networking", "public_name")
        fix = "let the gateway listen on 80 and 443 of the network, or set security.tls: internal_ca"
        yield Fault("the authority's challenge would not reach this gateway", place, "networking.public_name", fix)
    elif networking.get("air_gapped") and "directory" not in networking.get("acme", {}):
        place = _place(deployment, "networking", "air_gapped")
        fix = "name an authority that it reaches with networking.acme.directory, or set security.tls: internal_ca"
        yield Fault("a node without the Internet reaches no public authority", place, "networking.air_gapped", fix)


def _place(deployment: Deployment, *path: str) -> Any:
    return deployment.place(path) if path in deployment.origins else None


def acme_faults(gateway: Gateway, service: Service, deployment: Deployment) -> Iterator[Fault]:
    """What stands between the chosen gateway and a certificate by ACME."""
    if gateway.tls == "acme" and not service.acme:
        message = f"{service.name} of Debian 13 cannot fetch a certificate by ACME itself"
        path = (
            ("services", "gateway") if ("services", "gateway") in deployment.origins else ("networking", "public_name")
        )
        fix = "take caddy as gateway, or set security.tls: internal_ca"
        yield Fault(message, _place(deployment, *path), ".".join(path), fix)


def routes(services: Iterable[Service], faults: list[Fault]) -> tuple[Route, ...]:
    """What `services` offer through the gateway, in matching order; two of one name go to `faults`."""
    found = [Route(service.name, manifest) for service in services for manifest in service.routes]
    taken: dict[str, Route] = {}
    for route in found:
        asked = route.manifest.path or f"host {route.manifest.host}"
        written = f"services/{route.service}/service.yaml"
        if route.manifest.path and route.manifest.path.startswith(OWN_PATHS):
            faults.append(Fault(f"{written} routes {asked}, which the gateway answers itself", fix="take another path"))
        other = taken.setdefault(route.name, route)
        if other is not route:
            both = f"services/{other.service}/service.yaml and {written}"
            faults.append(Fault(f"{asked} is routed by {both}", fix="give each its own path"))
    return tuple(sorted(found, key=lambda route: route.order))
