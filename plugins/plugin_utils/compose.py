# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads as a Compose project: one file, the configuration it mounts, and templates of its secrets. Pure.

A service and each that may connect to it share a network that leads nowhere else. Source: the Compose
specification, as docker compose and podman-compose read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .images import BUILT
from .workloads import NOBODY, Workload, platform_name, yaml_text

_HEAD = """\
# Made by kai render. Run it with an engine that is rootless (Podman, or Docker in its rootless mode): root inside is
# then an ordinary user outside, as on a kOS node. Save each secrets/NAME.template, with its values in, as secrets/NAME.
"""


def compose(name: str, workloads: Iterable[Workload]) -> dict[str, str]:
    """The files of the project `name`, by their path below its folder."""
    found = list(workloads)
    reached = {peer for workload in found for peer in workload.peers}
    files = {
        "compose.yaml": _HEAD
        + yaml_text(
            _drop_empty(
                {
                    "name": name,
                    "services": {workload.name: _service(workload, reached) for workload in found},
                    "networks": {key: value for workload in found for key, value in _networks(workload, reached)},
                    "volumes": {_volume(workload, row): {} for workload in found for row in workload.data},
                    "secrets": {
                        _secret(workload, secret): {"file": f"./secrets/{_secret(workload, secret)}"}
                        for workload in found
                        for secret in workload.mounted_secrets
                    },
                }
            ),
        )
    }
    for workload in found:
        files |= {f"config/{workload.name}/{_below(path)}": text for path, text in workload.files.items()}
        files |= {f"secrets/{_secret(workload, key)}.template": text for key, text in workload.secrets.items()}
    return files


def _service(workload: Workload, reached: set[str]) -> dict[str, Any]:
    container = workload.container
    user = _user(workload)
    return _drop_empty(
        {
            "image": workload.image,
            # What was built here is in no registry.
            "pull_policy": "never" if workload.image.startswith(f"{BUILT}/") else "missing",
            "hostname": workload.name,
            "entrypoint": [container.entrypoint] if container.entrypoint else None,
            "command": [_literal(word) for word in workload.command()],
            "user": f"{user}:{user}",
            "read_only": container.writable_root is None,
            "cap_drop": ["ALL"],
            "cap_add": [kept.name.removeprefix("CAP_") for kept in container.linux_capabilities],
            "security_opt": ["no-new-privileges:true"],
            "environment": {key: _literal(value) for key, value in workload.environment().items()},
            "env_file": [f"./secrets/{_secret(workload, container.environment_secret)}"]
            if container.environment_secret
            else None,
            "secrets": [
                {"source": _secret(workload, name), "target": f"{folder}/{name}"}
                for folder in ("/run/secrets", workload.credentials)
                for name in workload.mounted_secrets
            ],
            "volumes": _mounts(workload),
            "tmpfs": container.tmpfs,
            "networks": [key for key, _value in _networks(workload, reached)]
            + [_network(platform_name(peer)) for peer in workload.peers],
            # Networks are of this project alone: nothing of the machine's, and no door but these.
            "ports": [f"127.0.0.1:{port.port}:{port.port}/{port.protocol}" for port in workload.ports],
            "depends_on": [platform_name(peer) for peer in workload.peers if peer in workload.service.requires],
            "mem_limit": f"{workload.memory_mb}m" if workload.memory_mb else None,
            "cpus": workload.cpus,
            "pids_limit": workload.service.resources.tasks_max,
            "healthcheck": _health(workload),
            "x-kos-probe": workload.service.probe.model_dump(exclude_none=True) if workload.service.probe else None,
            "deploy": _gpu() if workload.gpu else None,
            "restart": "on-failure",
        }
    )


def _user(workload: Workload) -> int:
    """Nobody, where it writes nothing that another user would own."""
    plain = not workload.data and not workload.needs_root
    return workload.container.user or (NOBODY if plain else 0)


def _mounts(workload: Workload) -> list[str]:
    mounts = [f"{_volume(workload, row)}:{path}" for row, path in workload.data.items()]
    if workload.files:
        mounts.append(f"./config/{workload.name}:/etc/kos/{workload.service.name}:ro")
    if workload.container.models:
        mounts.append("./models:/models:ro")
    return mounts


def _networks(workload: Workload, reached: set[str]) -> list[tuple[str, dict[str, Any]]]:
    """The networks that are there for this service: one where others reach it, one where its doors are."""
    found: list[tuple[str, dict[str, Any]]] = []
    if workload.service.name in reached:
        found.append((_network(workload.name), {"internal": True}))
    if workload.ports or workload.container.internet or not workload.peers:
        # Docker publishes no port of an internal network.
        internal = not workload.ports and not workload.container.internet
        found.append((f"{workload.name}-door", {"internal": True} if internal else {}))
    return found


def _health(workload: Workload) -> dict[str, Any] | None:
    if not workload.container.health:
        return None
    deadline = workload.service.probe.deadline if workload.service.probe else 30
    test = ["CMD", *(_literal(word) for word in workload.container.health)]
    return {"test": test, "interval": "30s", "timeout": "10s", "retries": 3, "start_period": f"{deadline}s"}


def _gpu() -> dict[str, Any]:
    return {"resources": {"reservations": {"devices": [{"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"]}]}}}


def _network(name: str) -> str:
    return f"to-{name}"


def _volume(workload: Workload, name: str) -> str:
    return f"{workload.name}-{name}"


def _secret(workload: Workload, name: str) -> str:
    return f"{workload.name}.{name}"


def _below(path: str) -> str:
    return path.split("/", 4)[4]


def _literal(word: str) -> str:
    """`word` with nothing in it for Compose to replace."""
    return word.replace("$", "$$")


def _drop_empty(data: dict[str, Any]) -> dict[str, Any]:
    """`data` without what says nothing; a network without settings says something."""
    return {key: value for key, value in data.items() if value not in (None, [], {}, False)}
