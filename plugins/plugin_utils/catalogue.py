# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue: every service as typed data, read from ``services/<name>/service.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .asks import NO_ASKS, Asks, load_asks
from .documents import read_document
from .faults import ConfigurationError, Fault, Place, nearest, shown_path
from .models import Strict, parse

Size = Annotated[str, Field(pattern=r"^[0-9]+[KMGT]$", examples=["64M"])]
SizeOrShare = Annotated[str, Field(pattern=r"^([0-9]+[KMGT]|[1-9][0-9]*%)$", examples=["512M", "25%"])]
Argv = list[str]
ServiceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Exposure = Literal["node", "network"]
Architecture = Literal["amd64", "arm64"]


class DebSubstrate(Strict):
    """Packages of Debian 13; `masks` are their own systemd units, which kOS keeps from starting."""

    packages: list[str]
    masks: list[str] = []
    architectures: list[Architecture] = ["amd64", "arm64"]


class ContainerSubstrate(Strict):
    """A container image without its registry; no `tag` where nobody publishes versions."""

    image: str
    tag: str | None = None
    architectures: list[Architecture] = ["amd64", "arm64"]


class VenvSubstrate(Strict):
    packages: list[str]


class Substrates(Strict):
    """In order of preference: `deb`, `container`, `venv`."""

    deb: DebSubstrate | None = None
    container: ContainerSubstrate | None = None
    venv: VenvSubstrate | None = None


class PortManifest(Strict):
    name: str
    port: Annotated[int | str, Field(description="a number, or an `@kos:…@` token that the node fills in")]
    protocol: Literal["tcp", "udp"] = "tcp"
    exposure: Exposure = "node"


class Volume(Strict):
    """A directory whose content outlives the service: inside its container, else on the node."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    path: Annotated[str, Field(pattern=r"^/")]
    holds: str
    backup: Literal["stopped", "live", "none"] = Field(
        default="stopped", description="`stopped`: copied while the service is, `live`: at any time, `none`: made again"
    )


class Secret(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    length: Annotated[int, Field(ge=16, le=128)] = 32
    made: Literal["node", "operator"] = Field(
        default="node", description="`operator`: empty unless given in kos_secrets, and never invented"
    )


class FileManifest(Strict):
    """A template and where it lands; `sealed` ones are encrypted on the node for one systemd unit."""

    template: str
    of: ServiceName | None = Field(default=None, description="the service whose template it is; default: this one")
    path: Annotated[str, Field(pattern=r"^/")] | None = None
    sealed: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] | None = None
    unit: str | None = None
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$")] = "0644"
    owner: str = "root"
    group: str = "root"
    units: list[str] | None = Field(default=None, description="systemd units it affects; default: all of the service")
    phase: Literal["packages", "tier"] = "tier"

    @model_validator(mode="after")
    def _one_destination(self) -> FileManifest:
        if (self.path is None) == (self.sealed is None):
            raise ValueError("needs either `path` or `sealed`")
        if self.sealed and not self.unit:
            raise ValueError("a sealed file needs the `unit` that reads it")
        return self


class SandboxException(Strict):
    """Where a unit leaves the base sandbox, and why; the directive ``*`` leaves all of it."""

    directive: str
    value: str | list[str] | None = Field(description="null drops the directive, a list writes one line an item")
    reason: str


class Bounds(Strict):
    min: SizeOrShare | float | int | None = None
    max: SizeOrShare | None = None


class Resources(Strict):
    """`min` is what the plan adds up; `max` becomes MemoryMax= or CPUQuota=."""

    memory: Bounds = Bounds()
    cpu: Bounds = Bounds()
    disk: Bounds = Bounds()
    tasks_max: int | None = None


class RouteManifest(Strict):
    """What the gateway passes on to the service: a path prefix, or a host name of its own, and who may use it."""

    path: Annotated[
        str | None,
        Field(pattern=r"^(/[a-z0-9][a-z0-9_-]*)+$", description="`/service_name` or `/service_name/function`"),
    ] = None
    host: Annotated[
        str | None,
        Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="a label before the node's own name"),
    ] = None
    port: Annotated[int | None, Field(ge=1, le=65535, description="on loopback")] = None
    socket: Annotated[str | None, Field(pattern=r"^/run/[A-Za-z0-9._/-]+$")] = None
    strip: Annotated[bool, Field(description="whether the service is asked without the path prefix")] = False
    authentication: bool = True
    reason: Annotated[str | None, Field(description="why a route needs no authentication")] = None
    reach: Annotated[Exposure, Field(description="`node`: only programs of this node")] = "network"
    streaming: Annotated[bool, Field(description="WebSocket or long answers: nothing is buffered")] = False
    rate_limit: Annotated[int | None, Field(ge=1, description="requests a minute and client")] = None
    content_security_policy: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9 ';:/.*_=-]+$", description="where the service's pages need another")
    ] = None

    @model_validator(mode="after")
    def _complete(self) -> RouteManifest:
        if (self.path is None) == (self.host is None):
            raise ValueError("needs either `path` or `host`")
        if (self.port is None) == (self.socket is None):
            raise ValueError("needs either `port` or `socket`")
        if not self.authentication and not self.reason:
            raise ValueError("a route without authentication needs a `reason`")
        return self


class BalancedManifest(Strict):
    """A port that the load balancer spreads over the peers of a cluster; `check` tells which peers take part."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    listen: Annotated[int, Field(ge=1, le=65535, description="the load balancer's port")]
    port: Annotated[int, Field(ge=1, le=65535, description="the port on each peer")]
    mode: Literal["tcp", "http"] = "tcp"
    exposure: Exposure = "node"
    check_port: Annotated[int | None, Field(ge=1, le=65535, description="default: the port itself")] = None
    check_path: Annotated[str | None, Field(pattern=r"^/[A-Za-z0-9/_?=&.-]*$")] = None
    tls: Annotated[bool, Field(description="whether the peers speak TLS with certificates of the node's authority")] = (
        False
    )


class CertificateManifest(Strict):
    """A certificate of the node's own authority, made on the node and handed to the units as credentials."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", description="its common name")]
    units: list[str]
    usage: list[Literal["server", "client"]]
    public: Annotated[bool, Field(description="whether it names the node's public name, for the gateway")] = False


class UnitManifest(Strict):
    """One systemd unit of the service; a timer has no `exec`, its `Timer` section is in `extra`."""

    name: Annotated[str, Field(pattern=r"^kos-[a-z0-9-]+\.(service|timer|target)$")]
    type: Literal["simple", "exec", "notify", "notify-reload", "oneshot"] = "exec"
    exec: str | None = None
    exec_start_pre: list[str] = []
    exec_start_post: list[str] = []
    exec_stop: str | None = None
    exec_reload: str | None = None
    environment: dict[str, str] = {}
    user: str | None = Field(default=None, description="default: the service's user; `root` needs a reason in `notes`")
    after: list[str] = []
    resources: Resources | None = Field(default=None, description="default: the service's")
    state_directory: str | None = None
    runtime_directory: str | None = None
    credentials: list[str] = []
    sandbox: list[SandboxException] = []
    extra: dict[str, dict[str, str | int | list[str]]] = {}
    on_change: Literal["restart", "reload"] = "restart"
    live: Argv | None = Field(
        default=None, description="prints what the unit keeps in the kernel; a different answer later is drift"
    )
    starts: Literal["now", "boot", "demand"] = Field(
        default="now", description="`boot`: only when the machine starts; `demand`: only by a timer or a command"
    )

    @model_validator(mode="after")
    def _timer_or_service(self) -> UnitManifest:
        if self.name.endswith(".service") and self.exec is None:
            raise ValueError("a service needs `exec`")
        return self


class HttpProbe(Strict):
    url: str
    status: int = 200
    contains: str | None = None


class TcpProbe(Strict):
    port: int
    host: str = "127.0.0.1"
    send: str | None = None
    expect: str | None = None


class Probe(Strict):
    """How to tell that the service works; run unprivileged. `deadline` in seconds."""

    http: HttpProbe | None = None
    tcp: TcpProbe | None = None
    exec: Argv | None = None
    deadline: Annotated[int, Field(ge=1, le=600)] = 30

    @model_validator(mode="after")
    def _one_kind(self) -> Probe:
        if sum(kind is not None for kind in (self.http, self.tcp, self.exec)) != 1:
            raise ValueError("needs exactly one of `http`, `tcp`, `exec`")
        return self


class MetricsEndpoint(Strict):
    port: int
    path: str = "/metrics"


class BackupCommands(Strict):
    """Run as `user`; ``$KOS_BACKUP`` names a directory, ``$KOS_CREDENTIALS`` the one with the units' credentials."""

    user: str | None = None
    command: Argv
    restore: Argv
    holds: Argv = Field(
        description="prints `yes` or `no`: whether there is data that a restore would replace and a fresh node has not"
    )
    stopped: list[Literal["backup", "restore"]] = Field(default=[], description="verbs for which its units are stopped")


class ImportCommands(Strict):
    """How another service's export becomes this one's data; ``$KOS_BACKUP`` names what that one's backup command made.

    `compare` prints one JSON line a thing (name, number, checksum) and fails where the two differ.
    """

    user: str | None = None
    command: Argv
    compare: Argv


class Hooks(Strict):
    user: str | None = Field(default=None, description="default: the service's user")
    pre_init: list[Argv] = []
    post_init: list[Argv] = []
    exit: list[Argv] = []


class Fallback(Strict):
    """Another service that takes the place of this one, and why."""

    service: str
    why: str


class Variant(Strict):
    """Another name that a profile may use for the service; `why` says how the two relate."""

    name: ServiceName
    summary: str
    why: str
    licence: str | None = Field(default=None, description="SPDX; default: the service's")
    source: str | None = Field(default=None, description="default: the service's")


class Service(Strict):
    """A service manifest: the specification's container unit as data."""

    name: ServiceName
    summary: str
    tier: Annotated[int, Field(ge=0, le=3)]
    provides: list[str]
    licence: Annotated[str, Field(description="SPDX expression, or `proprietary`")]
    source: Annotated[str, Field(description="where the facts are from, unless `facts` says otherwise")]
    facts: dict[str, str] = Field(default_factory=dict, description="a key of this manifest -> where its fact is from")
    variants: list[Variant] = []
    not_run: str | None = Field(default=None, description="why no release so far runs it, whatever its substrates")
    instead: Fallback | None = Field(default=None, description="what kOS runs whenever this is asked for")
    requires: list[str] = []
    stands_for: list[ServiceName] = Field(
        default=[], description="services whose place it takes, where both are asked for or another requires them"
    )
    substrates: Substrates
    user: str | None = None
    groups: list[str] = []
    ports: list[PortManifest] = []
    volumes: list[Volume] = []
    secrets: list[Secret] = []
    files: list[FileManifest] = []
    units: list[UnitManifest] = []
    check: Annotated[
        Argv | None, Field(description="refuses its new files before they are in place; run in a room of its own")
    ] = None
    routes: list[RouteManifest] = []
    balanced: list[BalancedManifest] = []
    certificates: list[CertificateManifest] = []
    acme: Annotated[bool, Field(description="as gateway: fetches certificates for a public name itself")] = False
    resources: Resources = Resources()
    trust: Literal["core", "trusted", "community", "untrusted"] = "trusted"
    affinity: list[str] = []
    needs: list[Literal["gpu", "internet"]] = Field(default=[], description="what it cannot do without")
    probe: Probe | None = None
    probe_reason: str | None = None
    metrics: MetricsEndpoint | None = None
    metrics_reason: str | None = None
    backup: BackupCommands | None = None
    backup_reason: str | None = None
    imports: dict[ServiceName, ImportCommands] = Field(
        default_factory=dict, description="another service, whose data this one takes over in a migration"
    )
    hooks: Hooks = Hooks()
    fallbacks: list[Fallback] = []
    notes: list[str] = []

    @property
    def others(self) -> list[Fallback]:
        """What may run where this is asked for: the default that takes its place, then the fallbacks in order."""
        return [*([self.instead] if self.instead else []), *self.fallbacks]

    @property
    def users(self) -> list[str]:
        """The system users that run something of it."""
        found = {self.user, *(unit.user for unit in self.units)} - {None, "root"}
        return sorted(user for user in found if user)


class Catalogue:
    """Every service by name, the folder each came from, and which service a variant's name leads to."""

    def __init__(
        self,
        folder: Path,
        services: dict[str, Service],
        sandbox: dict[str, str | list[str]],
        asks: Asks = NO_ASKS,
    ) -> None:
        self.folder = folder
        self.services = services
        self.sandbox = sandbox
        self.asks = asks
        self.variants = {entry.name: (service, entry) for service in services.values() for entry in service.variants}

    @property
    def names(self) -> list[str]:
        """Every name that a profile may ask for, sorted."""
        return sorted({*self.services, *self.variants})

    def service(self, name: str) -> Service:
        """The service called `name`, or of which that is a variant. Raises KeyError."""
        return self.variants[name][0] if name in self.variants else self.services[name]

    def standing_in(self, stand_ins: Mapping[str, str]) -> Catalogue:
        """The same catalogue where whatever requires a key of `stand_ins` requires its value instead."""
        services = {
            name: service.model_copy(
                update={"requires": [stand_ins.get(needed, needed) for needed in service.requires]}
            )
            for name, service in self.services.items()
        }
        return Catalogue(self.folder, services, self.sandbox, self.asks)

    def text(self, service: str, relative: str) -> str:
        """The content of a file in the service's folder; it never leaves that folder."""
        base = (self.folder / service).resolve()
        path = (base / relative).resolve()
        if not path.is_relative_to(base):
            raise ConfigurationError([Fault(f"'{relative}' points outside {base.name}/", None, service)])
        return path.read_text(encoding="utf-8")

    def headers(self) -> dict[str, Any]:
        """The security headers that every gateway sends; empty where the catalogue has none."""
        path = self.folder / "headers.yaml"
        return read_document(path).data if path.is_file() else {}

    def has(self, service: str, relative: str) -> bool:
        """Whether the service's folder holds `relative`."""
        return (self.folder / service / relative).is_file()


def load_catalogue(folder: Path) -> Catalogue:
    """Every manifest below `folder`.

    Raises ConfigurationError with all faults of all manifests: unknown keys, a name that differs from its
    folder or is used twice, a requirement, default or fallback that no manifest describes.
    """
    services: dict[str, Service] = {}
    places: dict[str, Place] = {}
    faults: list[Fault] = []
    paths = sorted(folder.glob("*/service.yaml"))
    for path in paths:
        try:
            # A probe may send what no text holds: MQTT is binary.
            document = read_document(path, control=True)
            manifest = parse(Service, document.data, document.place)
        except ConfigurationError as error:
            faults += error.faults
            continue
        if manifest.name != path.parent.name:
            faults.append(Fault(f"must be '{path.parent.name}', like its folder", document.place(("name",)), "name"))
        services[manifest.name] = manifest
        places[manifest.name] = document.place()
    faults += _wrong_references(services, {path.parent.name for path in paths}, places)
    if faults:
        raise ConfigurationError(faults)
    catalogue = Catalogue(folder, services, _sandbox(folder), load_asks(folder))
    _check_asks(catalogue)
    return catalogue


def _check_asks(catalogue: Catalogue) -> None:
    names = catalogue.names
    place = Place(shown_path(catalogue.folder / "asks.yaml"))
    faults = [
        Fault(f"no service is called '{service}'", place, key, nearest(service, names))
        for key, replies in catalogue.asks.asks.items()
        for reply in replies.values()
        for service in reply.services
        if service not in names
    ]
    if faults:
        raise ConfigurationError(faults)


def _wrong_references(services: dict[str, Service], folders: set[str], places: dict[str, Place]) -> Iterator[Fault]:
    """Names that two manifests use, and names that none does; `folders` counts manifests that could not be read."""
    known = set(folders)
    for service in services.values():
        for variant in service.variants:
            if variant.name in known:
                yield Fault(f"another service is already called '{variant.name}'", places[service.name], "variants")
            known.add(variant.name)
    for service in services.values():
        # A variant has no process of its own: it cannot be started, replaced or borrowed from.
        named = [*service.requires, *service.stands_for, *(file.of for file in service.files if file.of)]
        references = [(needed, folders) for needed in named]
        references += [(other.service, known) for other in service.others]
        for referred, names in references:
            if referred not in names:
                yield Fault(f"no service is called '{referred}'", places[service.name], "", nearest(referred, names))


def _sandbox(folder: Path) -> dict[str, Any]:
    path = folder / "sandbox.yaml"
    return read_document(path).data if path.is_file() else {}
