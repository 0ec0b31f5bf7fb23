# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small catalogues and machines for tests of the pure core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ansible_collections.kind.kos.plugins.plugin_utils import assemble

ROOT = Path(__file__).resolve().parents[2]

BIG: dict[str, Any] = {
    "os": {"id": "debian", "version": "13"},
    "architecture": "amd64",
    "cpu": 64,
    "memory_mb": 262144,
    "disk_gb": 4000,
    "gpus": ["nvidia"],
    "network_mbps": 10000,
}


def machine(**changes: Any) -> Any:
    """Hardware facts of a machine that suffices for anything, but for `changes`."""
    return assemble.facts_from({**BIG, **changes}, "test facts")


def manifest(name: str, **changes: Any) -> dict[str, Any]:
    """A service that runs from a Debian package, but for `changes`."""
    return {
        "name": name,
        "summary": f"the {name} of a test",
        "tier": 1,
        "provides": [name],
        "licence": "MIT",
        "source": "https://example.org",
        "substrates": {"deb": {"packages": [name]}},
        **changes,
    }


def catalogue(folder: Path, *extra: dict[str, Any], templates: dict[str, str] | None = None) -> Path:
    """A services folder with the three core services and `extra`."""
    core = [manifest("status", tier=0), manifest("nftables"), manifest("caddy", provides=["gateway"])]
    for data in [*core, *extra]:
        place = folder / "services" / data["name"]
        (place / "templates").mkdir(parents=True, exist_ok=True)
        (place / "service.yaml").write_text(yaml.safe_dump(data))
    for name, text in (templates or {}).items():
        (folder / "services" / name).write_text(text)
    return folder / "services"


def configs(folder: Path, profile: dict[str, Any], **layers: Any) -> Path:
    """A configs tree whose only profile is `test`; `layers` are site= and user=."""
    tree = folder / "configs"
    (tree / "profiles").mkdir(parents=True, exist_ok=True)
    (tree / "overrides").mkdir(exist_ok=True)
    (tree / "requirements.yaml").write_text("profiles: {test: {cpu: 2, memory_mb: 1024}}\n")
    (tree / "profiles" / "test.yaml").write_text(yaml.safe_dump({"profile": "test", "environment": "test", **profile}))
    for kind, data in layers.items():
        (tree / "overrides" / f"{kind}_overrides.yaml").write_text(yaml.safe_dump(data))
    return tree


def plan(folder: Path, profile: dict[str, Any], *extra: dict[str, Any], facts: Any = None, **layers: Any) -> Any:
    """The plan of a test profile on a test catalogue."""
    request = assemble.Request("test", configs=configs(folder, profile, **layers), services=catalogue(folder, *extra))
    return assemble.plan(request, facts or machine())
