# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys a profile, a mode or a layer may hold.

The seven profiles of the specification are valid as printed there; `Settings` is what any layer may
set, `Profile` adds the two keys that only a base profile has.
"""

from __future__ import annotations

import posixpath
import re
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from .durations import Duration
from .mode_options import BrowserOptions, ClusterOptions, EmbeddedOptions, ServerOptions, StandaloneOptions
from .models import Strict

Names = str | list[str]
Port = Annotated[int, Field(ge=1, le=65535)]
Address = Annotated[str, AfterValidator(lambda text: str(ip_address(text))), Field(examples=["10.0.0.7"])]
Network = Annotated[
    str, AfterValidator(lambda text: str(ip_network(text))), Field(examples=["10.0.0.7", "192.168.1.0/24"])
]


class Watch(Strict):
    """How a node looks after its services by itself."""

    enabled: bool | None = None
    interval: Annotated[int, Field(ge=5, le=3600)] | None = Field(
        default=None, description="seconds between two checks of every service; default 30"
    )
    restarts: Annotated[int, Field(ge=1, le=20)] | None = Field(
        default=None, description="restarts that fail before the declared fallback takes a service's place; default 3"
    )
    free_memory: Annotated[int, Field(ge=0, le=99)] | None = Field(
        default=None, description="percent of memory; with less the node is short of it; default 5, 0: never"
    )


class Orchestration(Strict):
    enabled: bool | None = None
    agent_mesh: Literal["local", "full", "federated"] | None = None
    debugging: bool | None = None
    kubernetes: Literal["none", "optional", "required"] | None = None
    load_balancing: bool | None = None
    helm_charts: str | None = None
    service_mesh: str | None = None
    insist: Annotated[
        bool | list[str] | None,
        Field(description="capabilities whose named service runs or nothing does; true: all of them"),
    ] = None
    fallback: Annotated[
        bool | list[str] | None,
        Field(
            description="capabilities whose service the node may leave for its declared fallback while it runs;"
            " default: all but those insisted upon"
        ),
    ] = None
    watch: Watch | None = None
    mirror: Annotated[
        str | None,
        Field(pattern=r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*$", description="a registry asked before an image's own"),
    ] = None
    sandbox: Annotated[
        dict[Literal["core", "trusted", "community", "untrusted"], Literal["gvisor"]] | None,
        Field(description="trust tier -> the stronger sandbox of its containers"),
    ] = None
    substrate: Annotated[
        dict[str, Literal["deb", "container", "venv"]] | None,
        Field(description="service -> what it runs on, where its manifest has more than one"),
    ] = None


class Services(Strict):
    """Which service answers each capability; a list asks for several."""

    llm_backend: Names | None = None
    llm_backends: list[str] | None = None
    vector_db: Names | None = None
    graph_db: Names | None = None
    message_bus: Names | None = None
    cache: Names | None = None
    database: Names | None = None
    databases: list[str] | None = None
    monitoring: Names | None = None
    task_queue: Names | None = None
    identity: Names | None = None
    gateway: Names | None = None
    firewall: Names | None = None
    status: Names | None = None
    load_balancer: Names | None = None
    mesh_vpn: Names | None = None
    intrusion_detection: Names | None = None
    secret_store: Names | None = None
    object_storage: Names | None = None
    logging: Names | None = Field(default=None, description="log aggregation")
    tracing: Names | None = None
    image_generation: Names | None = None
    web_ui: Names | None = None
    orchestrator: Names | None = None
    service_mesh: Names | None = None
    coordination: Names | None = Field(default=None, description="a store that members of a cluster agree through")
    storage: Literal["local_filesystem", "encrypted_local"] | None = None
    local_only: bool | None = None
    external_apis: Literal["user_configured", "none"] | None = None


class Federation(Strict):
    klp_enabled: bool | None = None
    discovery: Literal["local_only", "mesh", "public"] | None = None
    test_network: bool | None = None
    public_registry: bool | None = None
    private_network: bool | None = None
    trust_network: str | None = None
    handshake_required: bool | None = None
    enterprise_trust: Literal["none", "optional", "required"] | None = None


class Agents(Strict):
    core_agents: list[str] | None = None
    optional_agents: list[str] | None = None


class Development(Strict):
    hot_reload: bool | None = None
    agent_inspector: bool | None = None
    memory_debugging: bool | None = None
    trace_logging: Literal["none", "normal", "verbose"] | None = None


AuthenticationMethod = Literal[
    "jwt", "oauth2", "oidc", "biometric", "ldap", "saml", "local", "password", "totp", "webauthn", "mtls", "ssh_key"
]
Framework = Literal[
    "gdpr", "ccpa", "cpra", "sox", "hipaa", "pci_dss", "iso27001", "soc2", "nist_800_53", "nis2", "dora", "bsi", "cis"
]


class Authentication(Strict):
    """A list by itself is short for `methods`."""

    methods: list[AuthenticationMethod] | None = None
    session_timeout: Duration | None = None
    mfa_required: bool | None = None


class Encryption(Strict):
    """`end_to_end` by itself is short for `scope`."""

    scope: Literal["end_to_end", "transport"] | None = None
    at_rest: Literal["aes256", "none"] | None = None
    in_transit: Literal["tls13", "tls12", "none"] | None = None
    key_rotation: Literal["enabled", "disabled"] | Duration | None = None


class AccessControl(Strict):
    """`rbac` by itself is short for `type`."""

    type: Literal["rbac", "abac", "acl"] | None = None
    default_deny: bool | None = None
    audit_all: bool | None = None


class Compliance(Strict):
    """A list by itself is short for `frameworks`."""

    frameworks: list[Framework] | None = None
    data_retention: Duration | None = None
    audit_retention: Duration | None = None


HardeningLevel = Literal["none", "baseline", "strict"]


class HardeningSettings(Strict):
    """How far the machine itself is hardened; docs/hardening.md has every rule, and what each may break."""

    level: HardeningLevel | None = Field(
        default=None, description="default: baseline where comprehensive audit is asked for, else none"
    )
    off: list[str] | None = Field(default=None, description="rules that are left out, by id")


class IntrusionDetection(Strict):
    """`comprehensive` by itself is short for `level`."""

    level: Literal["none", "basic", "comprehensive"] | None = Field(
        default=None,
        description="`basic` bans who guesses passwords; `comprehensive` also watches files and writes down what"
        " processes do to them; default: `basic` on a node that answers the network",
    )
    never_ban: list[Network] | None = Field(default=None, description="addresses and networks, beside the node itself")
    attempts: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description="failed log-ins of one address that ban it; default 6"
    )
    within: Duration | None = Field(default=None, description="the time in which they count; default 10m")
    ban: Duration | None = Field(
        default=None, description="how long the first ban lasts, the next ones twice as long each; default 10m"
    )


class Security(Strict):
    vault: Literal["local_encrypted", "encrypted_local"] | None = None
    auth: Literal["development_mode", "biometric_optional", "biometric_required", "local", "none"] | None = None
    tls: Literal["self_signed", "internal_ca", "acme"] | None = None
    auto_lock: bool | None = None
    identity_verification: Literal["none", "optional", "required"] | None = None
    audit_logging: Literal["none", "basic", "comprehensive"] | None = None
    access_control: Literal["rbac", "abac", "acl"] | AccessControl | None = None
    authentication: list[AuthenticationMethod] | Authentication | None = None
    encryption: Literal["end_to_end", "transport"] | Encryption | None = None
    intrusion_detection: Literal["none", "basic", "comprehensive"] | IntrusionDetection | None = None
    compliance: list[Framework] | Compliance | None = None
    content_security_policy: Literal["strict", "relaxed"] | None = None
    permissions: Literal["minimal_required", "all"] | None = None
    hardening: HardeningSettings | None = None


class PrometheusSettings(Strict):
    enabled: bool | None = None
    retention: Duration | None = None


class VictoriametricsSettings(Strict):
    retention: Duration | None = Field(
        default=None, description="how long figures are kept; a year where it says nothing"
    )


class GrafanaSettings(Strict):
    enabled: bool | None = None
    dashboards: str | None = None


class Metrics(Strict):
    prometheus: PrometheusSettings | None = None
    victoriametrics: VictoriametricsSettings | None = None
    grafana: GrafanaSettings | None = None


class LogStore(Strict):
    enabled: bool | None = None
    retention: Duration | None = None


class LogStores(Strict):
    loki: LogStore | None = None
    elasticsearch: LogStore | None = None


class Jaeger(Strict):
    enabled: bool | None = None
    sampling_rate: Annotated[float, Field(ge=0, le=1)] | None = None


class Tracing(Strict):
    jaeger: Jaeger | None = None


AlertRoute = Literal["email", "slack", "pagerduty", "opsgenie", "matrix", "teams", "telegram", "webhook"]


class AlertmanagerSettings(Strict):
    enabled: bool | None = None
    routes: list[AlertRoute] | None = None


class Alerting(Strict):
    """`enterprise` by itself is short for `level`."""

    level: Literal["basic", "enterprise"] | None = None
    alertmanager: AlertmanagerSettings | None = None


class Monitoring(Strict):
    observability: Literal["none", "basic", "full_stack"] | None = None
    alerting: Literal["basic", "enterprise"] | Alerting | None = None
    audit: Literal["none", "basic", "comprehensive"] | None = None
    metrics: Metrics | None = None
    logging: LogStores | None = None
    tracing: Tracing | None = None


class Logging(Strict):
    level: Literal["debug", "info", "warning", "error"] | None = None
    output: Literal["console", "journal"] | None = None


class Ports(Strict):
    """Where the node's own front doors listen; `frontend` is the gateway's HTTPS port."""

    api: Port | None = None
    frontend: Port | None = None
    vault: Port | None = None


class Acme(Strict):
    """Where certificates for the public name come from."""

    directory: Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.:/_\[\]-]+$")] | None = Field(
        default=None, description="the authority's directory; default: the gateway's own choice"
    )
    email: Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+$")] | None = Field(
        default=None, description="whom the authority warns"
    )


class RateLimits(Strict):
    """What one client may ask of the gateway: requests where the gateway can count them, connections in any case."""

    requests_per_minute: PositiveInt | None = None
    burst: PositiveInt | None = Field(default=None, description="requests, or connections, at once beyond the rate")
    connections_per_minute: PositiveInt | None = None
    connections: PositiveInt | None = Field(default=None, description="open at the same time")


class Networking(Strict):
    host: Literal["localhost", "127.0.0.1", "::1"] | None = Field(
        default=None, description="keeps the gateway on this machine; without it, it answers the network"
    )
    ports: Ports | None = None
    air_gapped: bool | None = Field(
        default=None, description="this node never has the Internet: what lives there is not planned"
    )
    public_name: (
        Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?$")] | None
    ) = Field(default=None, description="the node's name in public DNS; its certificate then comes by ACME")
    acme: Acme | None = None
    rate_limits: RateLimits | None = None
    peers: list[Address] | None = Field(
        default=None, description="the nodes that the load balancer spreads work over; default: this one"
    )


class Storage(Strict):
    type: Literal["chrome_storage", "indexeddb"] | None = None
    encryption: Literal["web_crypto_api", "none"] | None = None


class Ui(Strict):
    theme: str | None = None
    window_state: Literal["persistent", "fresh"] | None = None
    tray_integration: bool | None = None


class Scaling(Strict):
    horizontal: bool | None = None
    auto_scale: bool | None = None
    resource_limits: Literal["configured", "none"] | None = None


class Retention(Strict):
    """How many snapshots stay: the newest, and one a day, week, month and year."""

    last: PositiveInt | None = None
    daily: PositiveInt | None = None
    weekly: PositiveInt | None = None
    monthly: PositiveInt | None = None
    yearly: PositiveInt | None = None


# What the sandbox of the backup does not see, or may never write.
# Folders that the backup's sandbox does not see or that are the system's own; one of the rest may hold a repository.
NO_REPOSITORY = (
    "home", "root", "tmp", "var/tmp", "run", "var/run", "proc", "sys", "dev", "etc", "usr", "bin", "sbin", "lib",
    "lib64", "boot", "var/lib/kos", "var/lib/dpkg", "var/lib/apt", "var/lib/systemd", "var/cache", "var/log",
)  # fmt: skip
# A repository may not be one of these itself; a folder in them may be.
PARENTS_ONLY = ("", "var", "var/lib", "srv", "mnt", "media", "opt")


def _repository(place: str) -> str:
    """A place for snapshots that the backup's sandbox can reach, its path normalised. Raises ValueError."""
    if not re.fullmatch(r"(/|sftp:|s3:)[A-Za-z0-9._~:/@+=-]+", place):
        raise ValueError("must be a path, sftp:user@host:/path or s3:https://host/bucket, without spaces or a password")
    if not place.startswith("/"):
        if _holds_password(place):
            raise ValueError("must hold no password: kos_secrets takes them (restic.s3_secret_key, restic.sftp_key)")
        return place
    path = posixpath.normpath(place).lstrip("/")
    refused = [name for name in NO_REPOSITORY if path == name or path.startswith(f"{name}/")]
    if refused or path in PARENTS_ONLY:
        raise ValueError(
            f"is a folder of the system or hidden from the backup's sandbox, as are /{', /'.join(NO_REPOSITORY)}:"
            " use a folder such as /srv/backup"
        )
    return f"/{path}"


def _holds_password(place: str) -> bool:
    """Whether a URL has ``user:password@`` before its host; ``sftp:user@host:/path`` has none."""
    authority = re.sub(r"^(sftp:|s3:)([a-z]+://)?/*", "", place).partition("/")[0]
    user, at, _host = authority.rpartition("@")
    return bool(at) and (":" in user or place.startswith("s3:"))


Repository = Annotated[str, AfterValidator(_repository), Field(examples=["/srv/backup", "sftp:kos@vault:/node1"])]


class Backup(Strict):
    """Where and when snapshots of all services go; without a repository nothing is backed up."""

    enabled: bool | None = None
    repository: Repository | list[Repository] | None = Field(
        default=None, description="a path, sftp: or s3:; the first of several is written to, the others are copies"
    )
    schedule: Annotated[str, Field(pattern=r"^[A-Za-z0-9*,./:~ -]+$", examples=["*-*-* 02:30:00"])] | None = Field(
        default=None, description="systemd calendar; default every night"
    )
    strategy: Literal["local", "multi_region"] | None = None
    encryption: Literal["required", "optional"] | None = Field(default=None, description="always on")
    retention: Literal["policy_based"] | Duration | Retention | None = None


class Settings(Strict):
    """What any layer may set."""

    orchestration: Orchestration | None = None
    services: Services | None = None
    federation: Federation | None = None
    agents: Agents | None = None
    development: Development | None = None
    security: Security | None = None
    monitoring: Monitoring | None = None
    logging: Logging | None = None
    networking: Networking | None = None
    storage: Storage | None = None
    ui: Ui | None = None
    scaling: Scaling | None = None
    backup: Backup | None = None
    standalone: StandaloneOptions | None = None
    browser: BrowserOptions | None = None
    embedded: EmbeddedOptions | None = None
    server: ServerOptions | None = None
    cluster: ClusterOptions | None = None


class Profile(Settings):
    """A base profile: the settings, its name, and the specification's environment label."""

    profile: str
    environment: str


class Minimum(Strict):
    """The least a machine must have; an omitted row is not checked."""

    cpu: PositiveInt | None = Field(default=None, description="cores")
    memory_mb: PositiveInt | None = None
    disk_gb: PositiveInt | None = None
    network_mbps: PositiveInt | None = None
    gpu: bool = False
    distributed: bool = Field(default=False, description="cpu, memory_mb and disk_gb are of the whole cluster")


class OptionKey(Strict):
    """The settings key that an option of a mode stands for, and what its values mean there."""

    key: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)+$")]
    values: dict[str, str | bool] = Field(
        default_factory=dict, description="an option's value -> the setting's; default: the same value"
    )
    unset: list[str] = Field(default_factory=list, description="values of the option that unset the setting")
    unit: Literal["s", "h", "d", "y"] | None = Field(default=None, description="of the number that the option holds")


class Feature(Strict):
    """What a feature of a mode is on a node: the setting that asks for it, or a sentence where nothing can."""

    key: str | None = Field(default=None, description="the settings key that asks for it")
    service: str | None = Field(default=None, description="the service of the catalogue that is asked for by the mode")
    built_in: str | None = Field(default=None, description="what every node has of it")
    unavailable: str | None = Field(default=None, description="why no node has it in this release")

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if sum(answer is not None for answer in (self.key, self.service, self.built_in, self.unavailable)) != 1:
            raise ValueError("needs exactly one of `key`, `service`, `built_in`, `unavailable`")
        return self


class Mode(Strict):
    """One of the specification's five deployment modes: a profile, minima and features."""

    mode: Literal["standalone", "browser", "embedded", "server", "cluster"]
    description: str
    target: str = Field(description="whom it is for")
    scalability: Literal["single", "local", "distributed", "cloud"]
    security_model: Literal["local", "federated", "enterprise"]
    profile: str = Field(description="the profile it starts from")
    minimum: Minimum
    features: dict[str, Feature]
    migrates_to: list[str] = []
    settings: Settings = Field(default=Settings(), description="a layer above the profile")
    option_keys: dict[str, str | OptionKey] = Field(
        default_factory=dict, description="an option of the mode -> the settings key it stands for"
    )
    service_options: str | None = Field(
        default=None, description="the option that lists services by name, as a list or as name: true or false"
    )
    service_keys: dict[str, str] = Field(
        default_factory=dict, description="a service that this option may name -> the capability it answers"
    )


class Requirements(Strict):
    """The specification's table of resources by profile."""

    profiles: dict[str, Minimum]
