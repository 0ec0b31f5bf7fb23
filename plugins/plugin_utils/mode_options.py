# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that each of the specification's five modes has of its own, below the mode's name in any layer."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from .durations import Duration
from .models import Strict


def _without_password(url: str) -> str:
    if re.search(r"//[^/@]*:[^/@]*@", url):
        raise ValueError("holds a password: leave it out, and put it into configs/secrets/<environment>.vault")
    return url


Url = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9+.-]*://[A-Za-z0-9._~:/?#\[\]@!&()*+,;=-]+$", examples=["https://gpu1.example:8443"]),
    AfterValidator(_without_password),
]
Folder = Annotated[str, Field(pattern=r"^(~|/)[A-Za-z0-9._/-]*$", examples=["/srv/kai"])]


class ServiceConfig(Strict):
    """One service of the standalone mode."""

    enabled: bool | None = None
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    models: list[str] | None = None
    gpu: bool | None = None
    models_path: Folder | None = None
    output_path: Folder | None = None
    persist_directory: Folder | None = None


class StandaloneStorage(Strict):
    """`db` stands for services.database; where data lies is the services' own."""

    db: Literal["sqlite", "leveldb"] | None = None
    files: Folder | None = None
    maxSize: PositiveInt | None = None  # noqa: N815 - the specification's own spelling


class StandaloneAuth(Strict):
    """`sessionTimeout` in seconds, or as `1h`."""

    mode: Literal["none", "local"] | None = None
    sessionTimeout: Duration | None = None  # noqa: N815 - the specification's own spelling


class StandaloneFeatures(Strict):
    """Switches of the whole system."""

    auto_update: bool | None = None
    telemetry: bool | None = None
    backup: bool | None = None


class StandaloneOptions(Strict):
    """The specification's ``StandaloneConfig``."""

    storage: StandaloneStorage | None = None
    auth: StandaloneAuth | None = None
    services: dict[str, bool | ServiceConfig] | None = None
    features: StandaloneFeatures | None = None


class BrowserOptions(Strict):
    """The specification's ``BrowserConfig``."""

    mode: Literal["browser"] | None = None
    data_store: Literal["indexeddb", "chrome_storage"] | None = None
    sync_with_kOS: bool | None = None  # noqa: N815 - the specification's own spelling
    local_services: list[str] | None = None
    telemetry: bool | None = None
    max_storage: PositiveInt | None = Field(default=None, description="MB")


class EmbeddedOptions(Strict):
    """What the specification's features of the embedded mode leave to choose."""

    db: Literal["sqlite", "leveldb"] | None = None
    mqtt: bool | None = None
    klp: bool | None = None
    voice_ui: bool | None = None
    hardware_keys: bool | None = None
    telemetry: bool | None = None
    max_storage: PositiveInt | None = Field(default=None, description="MB")


class ServerOptions(Strict):
    """The specification's ``ServerConfig``."""

    db_url: Url | None = None
    celery_broker: Url | None = None
    log_retention_days: PositiveInt | None = None
    auth_provider: Literal["oidc", "oauth2", "local"] | None = None
    vector_store: Literal["qdrant", "chroma", "pinecone"] | None = None
    gpu_nodes: list[Url] | None = None
    backup_schedule: str | None = Field(default=None, description="systemd calendar, such as `daily`")


class ClusterOptions(Strict):
    """What the specification's features of the cluster mode leave to choose."""

    orchestrator: Literal["kubernetes", "k3s", "nomad"] | None = None
    message_bus: Literal["nats", "kafka", "redis"] | None = None
    gateway: Literal["envoy", "caddy", "nginx", "haproxy"] | None = None
    vault_provider: Literal["vault", "openbao"] | None = None
    service_mesh: Literal["istio"] | None = None
    autoscale: bool | None = None
    nodes: list[str] | None = None
    gpu_nodes: list[Url] | None = None
