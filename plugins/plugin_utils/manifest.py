# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service manifest: a service of the catalogue as typed data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .models import Strict

Size = Annotated[str, Field(pattern=r"^[0-9]+[KMGT]$", examples=["64M"])]
SizeOrShare = Annotated[str, Field(pattern=r"^([0-9]+[KMGT]|[1-9][0-9]*%)$", examples=["512M", "25%"])]
Argv = list[str]
ServiceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Exposure = Literal["node", "peers", "network"]
Architecture = Literal["amd64", "arm64"]


class DebSubstrate(Strict):
    """Packages of Debian 13; `masks` are their own systemd units, which kOS keeps from starting."""

    packages: list[str]
    masks: list[str] = []
    unless: Annotated[
        dict[str, str], Field(description="a package -> another, or a virtual one: with that installed, it stays away")
    ] = {}
    architectures: list[Architecture] = ["amd64", "arm64"]


class LinuxCapability(Strict):
    """One Linux capability that the container keeps, and why."""

    name: Annotated[str, Field(pattern=r"^CAP_[A-Z_]+$")]
    reason: str


class ContainerSubstrate(Strict):
    """A container of the image that `services/images.lock` calls `image`, run rootless by a user of its own.

    Its root is read-only, it keeps no Linux capability, and it reaches nothing but what is named here. A port is
    the same number inside and on the node; each of the service's volumes is mounted at its `path`.
    """

    image: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*)?$", description="default: the service's name")] = ""
    entrypoint: Annotated[str | None, Field(description="default: the image's")] = None
    command: Annotated[Argv, Field(description="default: the image's")] = []
    environment: dict[str, str] = {}
    environment_secret: Annotated[
        str | None,
        Field(description="a sealed file with NAME=value lines, for an image that reads secrets from its environment"),
    ] = None
    user: Annotated[
        int, Field(ge=0, le=65535, description="the user inside, who is the service's own unprivileged user outside")
    ] = 0
    tmpfs: Annotated[list[str], Field(description="directories that may be written and are empty at each start")] = []
    reaches: Annotated[list[int], Field(description="ports on the node's loopback, beside those of `requires`")] = []
    internet: Annotated[str | None, Field(description="why it may open connections beyond the node")] = None
    health: Annotated[Argv | None, Field(description="run inside, where `probe` cannot tell from outside")] = None
    leaves_out: Annotated[list[str], Field(description="names of ports that only the packaged form has")] = []
    linux_capabilities: list[LinuxCapability] = []
    writable_root: Annotated[str | None, Field(description="why its root cannot be read-only")] = None
    sandbox: Annotated[
        Literal["gvisor", "wasm"] | None,
        Field(description="a stronger wall than the kernel's own; `wasm`: the image is a WebAssembly module"),
    ] = None
    models: Annotated[bool, Field(description="whether it reads the node's language models, at /models")] = False
    models_reload: Annotated[
        str | None,
        Field(pattern=r"^http://127\.0\.0\.1:", description="asked after a model came or went, so that it looks again"),
    ] = None


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
    """A template, or a `text`, and where it lands; `sealed` ones are encrypted on the node for one systemd unit."""

    template: str | None = None
    text: str | None = None
    of: ServiceName | None = Field(default=None, description="the service whose template it is; default: this one")
    path: Annotated[str, Field(pattern=r"^/")] | None = None
    sealed: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] | None = None
    unit: str | None = None
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$")] = "0644"
    owner: str = "root"
    group: str = "root"
    units: list[str] | None = Field(
        default=None, description="systemd units or daemons it affects; default: all units of the service"
    )
    phase: Literal["packages", "tier"] = "tier"

    @model_validator(mode="after")
    def _one_destination(self) -> FileManifest:
        if (self.template is None) == (self.text is None):
            raise ValueError("needs either `template` or `text`")
        if (self.path is None) == (self.sealed is None):
            raise ValueError("needs either `path` or `sealed`")
        if self.sealed and not self.unit:
            raise ValueError("a sealed file needs the `unit` that reads it")
        return self


class MachineSetting(Strict):
    """A value of the machine that is no file of ours; the one before it is remembered and given back."""

    kind: Literal["sysctl", "mode"]
    name: Annotated[str, Field(description="a sysctl, `*` for every interface, or the path of a file or directory")]
    value: str


class Daemon(Strict):
    """A program of Debian's that reads a file of ours: how it is told; with `unit`, only while that is active."""

    name: str
    unit: str | None = None
    tell: Argv


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
    api_key: Annotated[
        bool, Field(description="whether `Authorization: Bearer` with the node's API key lets in, beside the password")
    ] = False
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
        if self.api_key and not self.authentication:
            raise ValueError("a route without authentication needs no `api_key`")
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
    peers: Annotated[
        bool, Field(description="whether the cluster's authority signs it; its credentials are peers.crt and so on")
    ] = False


class UnitManifest(Strict):
    """One systemd unit of the service; a timer or path has no `exec`, its own section is in `extra`."""

    name: Annotated[str, Field(pattern=r"^kos-[a-z0-9-]+\.(service|timer|path|target)$")]
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


class Performance(Strict):
    """What the probe must measure after an update; a service that stays beyond is taken back like an unhealthy one."""

    latency_ms: Annotated[int, Field(ge=1, description="the median of the probe's answers")]
    error_rate: Annotated[float, Field(ge=0, le=1, description="the share of probes that fail")] = 0.0


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
    """Commands run as `user`, in order, with ``$KOS_SERVICE`` and ``$KOS_HOOK``; each must end within 10 seconds.

    `pre_init`: before its units are started with new files; one that fails takes the change back. `post_init`: once
    it answers; one that fails means that it is not healthy. `exit`: before its units are stopped for good; one that
    fails is logged, and the service goes all the same.
    """

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
    settings: list[MachineSetting] = []
    daemons: list[Daemon] = []
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
    needs: list[Literal["gpu", "internet", "kernel"]] = Field(default=[], description="what it cannot do without")
    probe: Probe | None = None
    probe_reason: str | None = None
    bounds: Annotated[Performance | None, Field(description="what its probe must measure after an update")] = None
    cluster: Annotated[
        Argv | None,
        Field(description="prints size, healthy, quorum and leader of its cluster as JSON; nothing where it has none"),
    ] = None
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

    @property
    def image(self) -> str | None:
        """The name in the image lock of the image that its container runs, or None."""
        container = self.substrates.container
        return None if container is None else container.image or self.name
