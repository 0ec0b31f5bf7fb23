# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that several commands share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..plugins.plugin_utils.assemble import COLLECTION, Request
from ..plugins.plugin_utils.documents import one_of
from ..plugins.plugin_utils.faults import ConfigurationError, Fault, nearest
from ..plugins.plugin_utils.hardware import RESOURCES
from .ansible import VaultPassword

Profile = Annotated[
    str | None,
    typer.Option("--profile", "-p", help="A profile or mode by name, such as personal_node or server."),
]
Environment = Annotated[
    str | None,
    typer.Option("--env", "--environment", help="An environment layer: local, staging or production."),
]
Site = Annotated[str | None, typer.Option("--site", help="The site layer: a file, or a name in configs/overrides.")]
User = Annotated[str | None, typer.Option("--user", help="The user layer: a file, or a name in configs/overrides.")]
Configs = Annotated[
    Path | None,
    typer.Option("--configs", envvar="KOS_CONFIGS", help="Tree of profiles, modes and layers; default: kOS's own."),
]
VaultPasswordFile = Annotated[
    Path | None,
    typer.Option("--vault-password-file", help="File, or program, that gives the password of configs/secrets."),
]
AskVaultPassword = Annotated[bool, typer.Option("--ask-vault-pass", help="Ask for the password of configs/secrets.")]
Inventory = Annotated[
    str | None,
    typer.Option("--inventory", "-i", envvar="KOS_INVENTORY", help="Ansible inventory; without it, this machine."),
]
Limit = Annotated[str | None, typer.Option("--limit", "-l", help="Only these hosts of the inventory.")]
YesIKnow = Annotated[
    str | None,
    typer.Option("--yes-i-know", metavar="NAMES", help="For scripts: the nodes, comma-separated, instead of typing."),
]
Bundle = Annotated[
    Path | None,
    typer.Option("--bundle", help="Deploy from this bundle (kai bundle build) and fetch nothing from anywhere else."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
AcceptShortfall = Annotated[
    str | None,
    typer.Option("--accept-shortfall", help="Go on below the minimum: any of cpu,memory,disk,gpu,network."),
]


def tree(given: Path | None) -> Path:
    """The tree of profiles, modes and layers. Raises ConfigurationError."""
    path = given or COLLECTION / "configs"
    try:
        if path.is_dir():
            return path.absolute()
    except OSError:
        pass
    fix = "name the folder that holds profiles/ and overrides/"
    raise ConfigurationError([Fault(f"no folder '{path}'", key="--configs", fix=fix)])


def layer_path(given: str | None, option: str, configs: Path) -> Path | None:
    """The file of a site or user layer given by path or by name. Raises ConfigurationError."""
    if given is None:
        return None
    overrides = configs / "overrides"
    try:
        named = None if Path(given).is_file() else one_of(overrides, given)
        if named is None and Path(given).exists():
            return Path(given).absolute()
    except OSError as error:
        raise ConfigurationError([Fault(f"cannot be read: {error.strerror}", key=option)]) from error
    if named:
        return named.absolute()
    known = [str(path.relative_to(overrides).with_suffix("")) for path in overrides.rglob("*") if path.is_file()]
    raise ConfigurationError([Fault(f"no layer '{given[:80]}'", key=option, fix=nearest(given, known))])


def vault_password(file: Path | None, ask: bool) -> VaultPassword:
    """The password of configs/secrets, given Ansible's way. Raises typer.BadParameter."""
    if file and ask:
        raise typer.BadParameter("--vault-password-file and --ask-vault-pass exclude each other")
    return VaultPassword(file, typer.prompt("Vault password", hide_input=True, err=True) if ask else None)


def request(
    profile: str,
    environment: str | None,
    site: str | None,
    user: str | None = None,
    configs: Path | None = None,
    accepted: frozenset[str] = frozenset(),
) -> Request:
    """What was given on the command line as a request. Raises ConfigurationError."""
    folder = tree(configs)
    return Request(
        name=profile,
        environment=environment,
        site=layer_path(site, "--site", folder),
        user=layer_path(user, "--user", folder),
        accepted=accepted,
        configs=folder,
    )


def accepted_shortfalls(given: str | None) -> frozenset[str]:
    """The resources named in a comma-separated list. Raises typer.BadParameter."""
    names = frozenset(name.strip() for name in (given or "").split(",") if name.strip())
    unknown = names - set(RESOURCES)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: known are {', '.join(RESOURCES)}")
    return names


def playbook_variables(
    profile: str | None,
    environment: str | None,
    site: str | None,
    accepted: frozenset[str],
    user: str | None = None,
    configs: Path | None = None,
) -> dict[str, Any]:
    """What was given on the command line, as the playbooks' variables; it wins over the inventory's."""
    folder = tree(configs)
    given = {
        "kos_profile": profile,
        "kos_environment": environment,
        "kos_site_layer": str(layer_path(site, "--site", folder)) if site else None,
        "kos_user_layer": str(layer_path(user, "--user", folder)) if user else None,
        "kos_configs": str(folder) if configs else None,
        "kos_accept_shortfall": sorted(accepted),
    }
    return {key: value for key, value in given.items() if value}
