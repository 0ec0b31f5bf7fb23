# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that several commands share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..plugins.plugin_utils.assemble import COLLECTION
from ..plugins.plugin_utils.faults import ConfigurationError, Fault, nearest
from ..plugins.plugin_utils.hardware import RESOURCES

Profile = Annotated[
    str | None,
    typer.Option("--profile", "-p", help="A profile or mode by name, such as personal_node or server."),
]
Environment = Annotated[
    str | None,
    typer.Option("--env", "--environment", help="An environment layer: local, staging or production."),
]
Site = Annotated[str | None, typer.Option("--site", help="The site layer: a file, or a name in configs/overrides.")]
Inventory = Annotated[
    str | None,
    typer.Option("--inventory", "-i", envvar="KOS_INVENTORY", help="Ansible inventory; without it, this machine."),
]
Limit = Annotated[str | None, typer.Option("--limit", "-l", help="Only these hosts of the inventory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
AcceptShortfall = Annotated[
    str | None,
    typer.Option("--accept-shortfall", help="Go on below the minimum: any of cpu,memory,disk,gpu,network."),
]


def site_path(given: str | None) -> Path | None:
    """The file of a site layer given by path or by name. Raises ConfigurationError."""
    if given is None:
        return None
    overrides = COLLECTION / "configs" / "overrides"
    for candidate in (
        Path(given),
        *(overrides / f"{given}{suffix}" for suffix in (".yaml", ".yml", ".json")),
    ):
        if candidate.is_file():
            return candidate.resolve()
    known = [path.stem for path in overrides.glob("*.yaml")]
    raise ConfigurationError([Fault(f"no site layer '{given}'", key="--site", fix=nearest(given, known))])


def accepted_shortfalls(given: str | None) -> frozenset[str]:
    """The resources named in a comma-separated list. Raises typer.BadParameter."""
    names = frozenset(name.strip() for name in (given or "").split(",") if name.strip())
    unknown = names - set(RESOURCES)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: known are {', '.join(RESOURCES)}")
    return names


def playbook_variables(
    profile: str | None, environment: str | None, site: str | None, accepted: frozenset[str]
) -> dict[str, Any]:
    """What was given on the command line, as the playbooks' variables; it wins over the inventory's."""
    given = {
        "kos_profile": profile,
        "kos_environment": environment,
        "kos_site_layer": str(site_path(site)) if site else None,
        "kos_accept_shortfall": sorted(accepted),
    }
    return {key: value for key, value in given.items() if value}
