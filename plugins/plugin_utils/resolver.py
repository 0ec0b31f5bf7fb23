# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profile and hardware to plan: which service answers each capability, in what order, and why.

Pure: no file, clock or network is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from . import hardening, venvs
from .asks import State, asked, leaves
from .catalogue import Catalogue
from .contradictions import contradictions
from .faults import ConfigurationError, Fault, Place, nearest
from .gateway import Gateway, acme_faults, listening, routes
from .hardware import KindOfHardware
from .layers import Deployment
from .manifest import Resources, Service
from .substrates import Obstacle, Substrate, choose, missing, obstacle, on_kind, preferring, sandboxed

# What every node has, whatever its profile says: the specification's core services.
CORE_CAPABILITIES = {"status": "status", "firewall": "nftables", "gateway": "caddy"}

# What of the configuration this release acts on, or answers for as not available.
ACTED_ON = (
    "profile",
    "environment",
    "services.",
    "agents.",
    "networking.",
    "logging.level",
    "orchestration.fallback",
    "orchestration.insist",
    "orchestration.mirror",
    "orchestration.sandbox.",
    "orchestration.substrate.",
    "orchestration.watch.",
    "backup.",
    "security.compliance.data_retention",
    "security.hardening.",
    "security.intrusion_detection.",
    "security.tls",
    "monitoring.metrics.prometheus.retention",
    "monitoring.metrics.victoriametrics.retention",
    "monitoring.logging.loki.retention",
)

# What a `backup:` section with a repository asks for.
BACKUP_SERVICE = "restic"

# What bans those who guess the passwords of a node that answers the network.
GUARD_SERVICE = "fail2ban"

# Capabilities that describe the machine rather than ask for a service.
DESCRIPTIVE = {"storage", "local_only", "external_apis"}

_FRONTEND = ("networking", "ports", "frontend")


@dataclass(frozen=True)
class PlannedPort:
    """One port of one planned service."""

    service: str
    name: str
    port: int | str
    protocol: str
    exposure: str


@dataclass(frozen=True)
class PlannedService:
    """One service that will run: for which capabilities, on what, and why this one.

    `asked` is the line that asked for it and stays out of the generation, `reasons` go into it.
    """

    name: str
    capabilities: tuple[str, ...]
    substrate: Substrate
    asked: str
    reasons: tuple[str, ...]
    manifest: Service

    @property
    def why(self) -> str:
        """Why this service and no other, as one sentence."""
        return "; ".join([self.asked, *self.reasons])

    @property
    def image(self) -> str | None:
        """The name in the image lock of the image it runs; None on another substrate."""
        return self.manifest.image if self.substrate == "container" else None

    @property
    def tier(self) -> int:
        """The tier of its manifest, 0 to 3."""
        return self.manifest.tier

    @property
    def metrics(self) -> Any:
        """What Prometheus scrapes, or None."""
        return self.manifest.metrics

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "name": self.name,
            "capability": self.capabilities[0],
            "capabilities": list(self.capabilities),
            "substrate": self.substrate,
            "tier": self.tier,
            "why": self.why,
            "requires": self.manifest.requires,
        }


@dataclass(frozen=True)
class Unavailable:
    """Something the profile asks for that will not run, and why."""

    capability: str
    requested: str
    why: str

    def as_dict(self) -> dict[str, str]:
        """The same as plain data."""
        return {"capability": self.capability, "requested": self.requested, "why": self.why}


@dataclass(frozen=True)
class Answer:
    """A setting that no service of its own answers: whether it is met all the same, and how."""

    key: str
    value: str
    state: State
    says: str

    def as_dict(self) -> dict[str, str]:
        """The same as plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class Plan:
    """What should run on one kind of machine; services are in start order."""

    deployment: Deployment
    kind: KindOfHardware
    offered: Catalogue
    catalogue: Catalogue
    services: tuple[PlannedService, ...]
    unavailable: tuple[Unavailable, ...]
    gateway: Gateway
    ports: tuple[PlannedPort, ...]
    answers: tuple[Answer, ...] = ()
    answered: frozenset[str] = frozenset()

    @property
    def not_acted_on(self) -> list[str]:
        """Keys that are set and understood, and that this release does nothing about."""
        keys = {".".join(path) for path, _value in leaves(self.deployment.settings)}
        silent = keys - self.answered - self.deployment.mapped
        return sorted(key for key in silent if not key.startswith(ACTED_ON))

    @property
    def units(self) -> list[str]:
        """Every systemd unit, in start order."""
        return [unit.name for service in self.services for unit in service.manifest.units]

    @property
    def packages(self) -> list[str]:
        """Every Debian package, sorted."""
        debs = [service.manifest.substrates.deb for service in self.services if service.substrate == "deb"]
        found = {name for deb in debs if deb for name in deb.packages}
        if any(service.substrate == "venv" for service in self.services):
            found.update(venvs.PACKAGES)
        return sorted(found)

    @property
    def unless(self) -> dict[str, str]:
        """Packages that stay away where another is installed."""
        debs = [service.manifest.substrates.deb for service in self.services if service.substrate == "deb"]
        return {name: other for deb in debs if deb for name, other in deb.unless.items()}

    @property
    def users(self) -> list[str]:
        """Every system user, sorted."""
        return sorted({user for service in self.services for user in service.manifest.users})

    @property
    def directories(self) -> list[str]:
        """Every data directory, sorted."""
        return sorted(path for service in self.services for path in _directories(service.manifest))

    @property
    def requires(self) -> dict[str, Any]:
        """What the services add up to: cores, MB of memory, MB of disk."""
        rows = [row for service in self.services for row in _resources(service.manifest)]
        return {
            "cpu": round(sum(float(row.cpu.min or 0) for row in rows), 2),
            "memory_mb": sum(megabytes(row.memory.min) for row in rows),
            "disk_mb": sum(megabytes(row.disk.min) for row in rows),
        }

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        minimum = self.deployment.minimum
        return {
            "profile": self.deployment.name,
            "services": [service.as_dict() for service in self.services],
            "unavailable": [entry.as_dict() for entry in self.unavailable],
            "answers": [entry.as_dict() for entry in self.answers],
            "not_acted_on": self.not_acted_on,
            "units": self.units,
            "ports": [vars(port) for port in self.ports],
            "directories": self.directories,
            "users": self.users,
            "packages": self.packages,
            "requires": {**self.requires, "minimum": minimum.model_dump(exclude_none=True)},
        }


@dataclass
class _Choices:
    """The services chosen so far; filled by `resolve`."""

    capabilities: dict[str, list[str]] = field(default_factory=dict)
    why: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    unavailable: list[Unavailable] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    places: dict[str, Place | None] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    insisted: Collection[str] = ()

    def add(self, service: str, capability: str, asked: str, reasons: list[str]) -> None:
        known = self.capabilities.setdefault(service, [])
        if capability not in known:
            known.append(capability)
        first, told = self.why.get(service, (asked, ()))
        self.why[service] = (first, (*told, *(reason for reason in reasons if reason not in told)))

    def lacks(self, entry: Unavailable) -> None:
        if entry not in self.unavailable:
            self.unavailable.append(entry)


def resolve(deployment: Deployment, catalogue: Catalogue, kind: KindOfHardware) -> Plan:
    """The plan for `deployment` on a machine of this kind.

    Raises ConfigurationError for a service that nobody describes, a port or directory wanted twice, and
    requirements that go in a circle.
    """
    wanted = deployment.settings.get("orchestration", {}).get("substrate") or {}
    offered = catalogue
    catalogue, unfit = preferring(catalogue, wanted)
    sandboxes = deployment.settings.get("orchestration", {}).get("sandbox") or {}
    catalogue = on_kind(sandboxed(_hardened(catalogue, deployment), sandboxes), kind)
    strange = hardening.faults(catalogue.rules, deployment.settings, deployment.place)
    choices = _Choices(faults=[*contradictions(deployment), *unfit, *strange], insisted=_insisted(deployment))
    for section, capability, requested, place in _requests(deployment):
        if requested not in catalogue.names:
            choices.faults.append(
                _unknown(requested, capability, Fault("", place, f"{section}.{capability}"), catalogue)
            )
            continue
        _choose(capability, requested, place, catalogue, kind, choices)
    _asks(deployment, catalogue, kind, choices)
    _features(deployment, catalogue, kind, choices)
    _backup(deployment, catalogue, kind, choices)
    _hardening(deployment, catalogue, kind, choices)
    _unanswered_ports(deployment, choices)
    gateway = listening(deployment, choices.faults)
    _guard(deployment, gateway, catalogue, kind, choices)
    catalogue = catalogue.standing_in(_stand_ins(catalogue, choices))
    for service in list(choices.capabilities):
        _require(service, catalogue, choices)
    services = tuple(
        _planned(name, choices, catalogue, kind)
        for name in _start_order(choices.capabilities, catalogue, choices.faults)
    )
    manifests = [service.manifest for service in services]
    gateway = replace(gateway, routes=routes(manifests, choices.faults))
    choices.faults += _gateway_faults(services, gateway, deployment)
    ports = tuple(_ports(services, gateway))
    choices.faults += [*_port_conflicts(ports, deployment, choices.places), *_directory_conflicts(services)]
    if choices.faults:
        raise ConfigurationError(choices.faults)
    return Plan(
        deployment=deployment,
        kind=kind,
        offered=offered,
        catalogue=catalogue,
        services=services,
        unavailable=tuple(choices.unavailable),
        gateway=gateway,
        ports=ports,
        answers=tuple(choices.answers),
        answered=frozenset(choices.answered),
    )


def _planned(name: str, choices: _Choices, catalogue: Catalogue, kind: KindOfHardware) -> PlannedService:
    manifest = catalogue.services[name]
    substrate = choose(manifest, kind, catalogue.images)
    if isinstance(substrate, Obstacle):
        # Only what another service requires comes here unchosen, and `missing` has asked for that.
        raise TypeError(f"{name} was planned and cannot run: {substrate.why}")
    return PlannedService(name, tuple(choices.capabilities[name]), substrate, *choices.why[name], manifest)


def megabytes(size: object) -> int:
    """``"64M"`` as 64; shares of the machine (``"25%"``) and absent sizes count as 0."""
    if not isinstance(size, str) or size.endswith("%"):
        return 0
    number, unit = int(size[:-1]), size[-1]
    return {"K": number // 1024, "M": number, "G": number * 1024, "T": number * 1024 * 1024}[unit]


def memory_mb(manifest: Service) -> int:
    """What a service takes of memory at least."""
    return sum(megabytes(row.memory.min) for row in _resources(manifest))


def _resources(manifest: Service) -> list[Resources]:
    return [manifest.resources, *(unit.resources for unit in manifest.units if unit.resources)]


def runs_for(requested: str, plan: Plan) -> PlannedService | None:
    """What of a plan runs where this service is asked for: itself, or what takes its place; None where nothing does."""
    found, _reasons = _first_runnable(requested, plan.catalogue, plan.kind, ())
    planned = {service.name: service for service in plan.services}
    others = (service for service in plan.services if found in service.manifest.stands_for)
    return planned.get(found or "") or next(others, None)


def _requests(deployment: Deployment) -> Iterator[tuple[str, str, str, Place | None]]:
    """Every (section, capability, wanted service, place) of the deployment; core capabilities where it names none."""
    for section in ("services", "agents"):
        for capability, value in deployment.settings.get(section, {}).items():
            if capability in DESCRIPTIVE:
                continue
            listed = isinstance(value, list)
            for index, name in enumerate(value if listed else [value]):
                path = (section, capability, index) if listed else (section, capability)
                yield section, capability, name, deployment.place(path)
    for capability, name in CORE_CAPABILITIES.items():
        if capability not in deployment.settings.get("services", {}):
            yield "services", capability, name, None


def _insisted(deployment: Deployment) -> Collection[str]:
    """The capabilities whose named service runs, or nothing does."""
    told = deployment.settings.get("orchestration", {}).get("insist") or []
    if told is True:
        return [capability for section in ("services", "agents") for capability in deployment.settings.get(section, {})]
    return list(told)


def _unknown(requested: str, capability: str, at: Fault, catalogue: Catalogue) -> Fault:
    """The fault of a name that no service has; where no name is near, its fix lists those for the capability."""
    fix = nearest(requested, catalogue.names)
    if fix.startswith("known:"):
        fitting = [name for name in catalogue.names if capability in catalogue.service(name).provides]
        fix = nearest(requested, fitting or catalogue.names)
    return Fault(f"this release's catalogue has no service '{requested}'", at.place, at.key, fix)


def _asks(deployment: Deployment, catalogue: Catalogue, kind: KindOfHardware, choices: _Choices) -> None:
    """What the settings outside ``services:`` ask for; what is not available is told once."""
    for entry in asked(catalogue.asks, {**deployment.settings, "profile": deployment.name}):
        choices.answered.add(entry.key)
        if entry.reply is None:
            continue
        if entry.reply.says and entry.reply.state:
            choices.answers.append(Answer(entry.key, entry.value, entry.reply.state, entry.reply.says))
        known = {row.requested for row in choices.unavailable}
        for name in (name for name in entry.reply.services if name not in known):
            capability = (catalogue.service(name).provides or [name])[0]
            _choose(capability, name, deployment.place(entry.path), catalogue, kind, choices)


def _features(deployment: Deployment, catalogue: Catalogue, kind: KindOfHardware, choices: _Choices) -> None:
    """What a mode promises beyond its settings: every feature is answered for."""
    for name, feature in deployment.features.items():
        if feature.service:
            if feature.service in catalogue.names:
                capability = (catalogue.service(feature.service).provides or [name])[0]
                _choose(capability, feature.service, None, catalogue, kind, choices)
            else:
                choices.lacks(Unavailable("feature", name, "no service of this release's catalogue answers it"))
        elif feature.unavailable:
            choices.lacks(Unavailable("feature", name, feature.unavailable))
        elif feature.built_in:
            choices.answers.append(Answer("feature", name, "met", feature.built_in))


def _choose(
    capability: str,
    requested: str,
    place: Place | None,
    catalogue: Catalogue,
    kind: KindOfHardware,
    choices: _Choices,
    unasked: str = "every node has one",
) -> None:
    asked_for = f"asked for in {place}" if place else unasked
    if capability in choices.insisted:
        name, reasons = _itself(catalogue.service(requested), catalogue, kind)
    else:
        name, reasons = _first_runnable(requested, catalogue, kind, ())
    if name is None and capability in choices.insisted:
        why = reasons[0]
        message = f"orchestration.insist wants {requested} and nothing in its place, and it cannot run: {why}"
        choices.faults.append(Fault(message, place, f"services.{capability}"))
    elif name is None:
        why = "; ".join(reasons).removeprefix(f"{requested}: ")
        choices.lacks(Unavailable(capability, requested, why))
    else:
        choices.places.setdefault(name, place)
        choices.add(name, capability, asked_for, reasons)


def _itself(manifest: Service, catalogue: Catalogue, kind: KindOfHardware) -> tuple[str | None, list[str]]:
    """The service itself, or the one reason why this machine does not run it."""
    why_not = obstacle(manifest, kind, catalogue.images) or missing(manifest, catalogue, kind)
    return (manifest.name, []) if why_not is None else (None, [why_not])


def _first_runnable(
    name: str, catalogue: Catalogue, kind: KindOfHardware, tried: tuple[str, ...]
) -> tuple[str | None, list[str]]:
    """What this machine runs where `name` is asked for, and the reasons that led there.

    A variant leads to its service; then come the default that takes its place, itself, its fallbacks in order.
    """
    if name in catalogue.variants:
        manifest, variant = catalogue.variants[name]
        found, reasons = _first_runnable(manifest.name, catalogue, kind, (*tried, name))
        return found, [f"{name}: {variant.why}", *reasons]
    manifest = catalogue.services[name]
    reasons = []
    for other in [*([manifest.instead] if manifest.instead else []), None, *manifest.fallbacks]:
        if other is None:
            why_not = obstacle(manifest, kind, catalogue.images) or missing(manifest, catalogue, kind)
            if why_not is None:
                return name, reasons
            reasons.append(f"{name}: {why_not}")
        elif other.service not in (name, *tried):
            found, more = _first_runnable(other.service, catalogue, kind, (*tried, name))
            if found is not None:
                of = f" of {name}" if other is manifest.instead else ""
                return found, [*reasons, f"{other.service} instead{of}: {other.why}", *more]
            reasons += more
    return None, reasons


def _backup(deployment: Deployment, catalogue: Catalogue, kind: KindOfHardware, choices: _Choices) -> None:
    """Backups run where a repository is named: the one thing that nobody can guess."""
    asked = deployment.settings.get("backup")
    if asked is None or asked.get("enabled") is False:
        return
    if not asked.get("repository"):
        why = "no repository is named: set backup.repository to a path, sftp:user@host:/path or s3:https://host/bucket"
        choices.unavailable.append(Unavailable("backup", BACKUP_SERVICE, why))
        return
    _choose("backup", BACKUP_SERVICE, deployment.place(("backup", "repository")), catalogue, kind, choices)


def _hardened(catalogue: Catalogue, deployment: Deployment) -> Catalogue:
    """The catalogue where the service `hardening` is what the rules of the wanted level make of it."""
    service = catalogue.services.get(hardening.SERVICE)
    if service is None:
        return catalogue
    made = hardening.hardened(service, catalogue.rules, deployment.settings)
    return catalogue.with_services({**catalogue.services, hardening.SERVICE: made})


def _hardening(deployment: Deployment, catalogue: Catalogue, kind: KindOfHardware, choices: _Choices) -> None:
    """A level other than none is planned as a service."""
    level, key = hardening.level_of(catalogue.rules, deployment.settings)
    if level == "none" or hardening.SERVICE not in catalogue.services:
        return
    _choose(hardening.SERVICE, hardening.SERVICE, deployment.place(tuple(key.split("."))), catalogue, kind, choices)


def _guard(
    deployment: Deployment, gateway: Gateway, catalogue: Catalogue, kind: KindOfHardware, choices: _Choices
) -> None:
    """A node that answers the network is guarded, unless its configuration says by whom, or by nobody."""
    level = deployment.settings.get("security", {}).get("intrusion_detection", {}).get("level")
    named = "intrusion_detection" in deployment.settings.get("services", {})
    if level is None and not named and gateway.bind == "all" and GUARD_SERVICE in catalogue.names:
        why = "every node that answers the network has one"
        _choose("intrusion_detection", GUARD_SERVICE, None, catalogue, kind, choices, why)


def _unanswered_ports(deployment: Deployment, choices: _Choices) -> None:
    ports = deployment.settings.get("networking", {}).get("ports", {})
    for name in ("api", "vault"):
        if name in ports:
            choices.unavailable.append(
                Unavailable(f"networking.ports.{name}", name, f"nothing of this release answers on port {ports[name]}")
            )


def _gateway_faults(services: tuple[PlannedService, ...], gateway: Gateway, deployment: Deployment) -> Iterator[Fault]:
    """There is one front door, and it can show the certificate that the profile asks for."""
    doors = [service for service in services if "gateway" in service.capabilities]
    if len(doors) > 1:
        place = deployment.place(("services", "gateway"))
        names = " and ".join(door.name for door in doors)
        yield Fault(f"a node has one gateway, and these are {names}", place, "services.gateway", "name one of them")
    for door in doors:
        yield from acme_faults(gateway, door.manifest, deployment)


def _stand_ins(catalogue: Catalogue, choices: _Choices) -> dict[str, str]:
    """Whose place a chosen service takes; where both were asked for, one of the two runs."""
    found = {absent: name for name in choices.capabilities for absent in catalogue.services[name].stands_for}
    for absent, name in found.items():
        for capability in choices.capabilities.pop(absent, []):
            asked, reasons = choices.why[name]
            choices.add(name, capability, asked, [])
            choices.why[name] = (asked, (*reasons, f"it also takes the place of {absent}"))
    return found


def _require(name: str, catalogue: Catalogue, choices: _Choices) -> None:
    for needed in catalogue.services[name].requires:
        known = needed in choices.capabilities
        provided = (catalogue.services[needed].provides or [needed])[0]
        if not known:
            choices.add(needed, provided, f"{name} needs it", [])
            _require(needed, catalogue, choices)


def _start_order(names: dict[str, list[str]], catalogue: Catalogue, faults: list[Fault]) -> list[str]:
    """`names` by tier, then after what each requires, then by name."""
    ordered: list[str] = []
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in ordered or name not in names:
            return
        if name in visiting:
            faults.append(Fault(f"'{name}' requires itself through {sorted(visiting - {name})}"))
            return
        visiting.add(name)
        for needed in sorted(catalogue.services[name].requires):
            visit(needed)
        visiting.discard(name)
        if name not in ordered:
            ordered.append(name)

    for name in sorted(names, key=lambda name: (catalogue.services[name].tier, name)):
        visit(name)
    return sorted(ordered, key=lambda name: catalogue.services[name].tier)


def _ports(services: tuple[PlannedService, ...], gateway: Gateway) -> Iterator[PlannedPort]:
    moved = {"https": gateway.https_port, "http": gateway.http_port}
    for service in services:
        for port in service.manifest.ports:
            number: int | str | None = port.port
            exposure: str = port.exposure
            if "gateway" in service.capabilities and port.name in moved:
                number = moved[port.name]
                exposure = "network" if gateway.bind == "all" else "node"
            if number is not None:
                yield PlannedPort(service.name, port.name, number, port.protocol, exposure)
        if "load_balancer" in service.capabilities:
            for offered in (entry for other in services for entry in other.manifest.balanced):
                yield PlannedPort(service.name, offered.name, offered.listen, "tcp", offered.exposure)


def _port_conflicts(
    ports: tuple[PlannedPort, ...], deployment: Deployment, places: dict[str, Place | None]
) -> Iterator[Fault]:
    taken: dict[tuple[int | str, str], PlannedPort] = {}
    moved = deployment.place(_FRONTEND) if _FRONTEND in deployment.origins else None
    for port in ports:
        other = taken.setdefault((port.port, port.protocol), port)
        if other is not port:
            wanted = f"{other.service} ({other.name}) and {port.service} ({port.name})"
            asked = [str(place) for name in (other.service, port.service) if (place := places.get(name))]
            message = f"{port.protocol} port {port.port} is wanted by {wanted}"
            if len(asked) > 1:
                message = f"{message}, asked for in {' and '.join(dict.fromkeys(asked))}"
            fix = "move one of them" if moved else "ask for one of them only"
            place = moved or places.get(port.service) or places.get(other.service)
            yield Fault(message, place, ".".join(_FRONTEND) if moved else "", fix)


def _directories(manifest: Service) -> list[str]:
    """The data directories that systemd makes for the service's units."""
    return sorted({f"/var/lib/{unit.state_directory}" for unit in manifest.units if unit.state_directory})


def _directory_conflicts(services: tuple[PlannedService, ...]) -> Iterator[Fault]:
    taken: dict[str, str] = {}
    for service in services:
        for directory in _directories(service.manifest):
            other = taken.setdefault(directory, service.name)
            if other != service.name:
                yield Fault(f"{directory} is wanted by {other} and {service.name}", fix="give each its own")
