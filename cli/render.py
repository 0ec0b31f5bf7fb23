# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai render`: a profile's services as files for Docker Compose or Kubernetes, or as what a node gets."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..plugins.module_utils.node import facts as node_facts
from ..plugins.plugin_utils import assemble
from ..plugins.plugin_utils.compose import compose
from ..plugins.plugin_utils.documents import read_facts
from ..plugins.plugin_utils.kubernetes import kubernetes, secret_commands
from ..plugins.plugin_utils.workloads import workloads
from . import options
from .exits import Exit
from .view import errors


class Substrate(StrEnum):
    """What the files are for."""

    compose = "compose"
    kubernetes = "kubernetes"
    quadlet = "quadlet"
    systemd = "systemd"


# Where a generation has what a node gets.
_ON_A_NODE = {
    Substrate.quadlet: "tree/etc/containers/systemd/",
    Substrate.systemd: "tree/etc/systemd/system/",
}


def render(
    profile: Annotated[str, typer.Option("--profile", "-p", help="A profile or mode by name, such as server.")],
    substrate: Annotated[Substrate, typer.Option("--substrate", help="What the files are for.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the files; default: print.")] = None,
    facts: Annotated[
        Path | None, typer.Option("--facts", help="Facts of the machine it will run on, as kai facts prints them.")
    ] = None,
    registry: Annotated[
        str, typer.Option("--registry", help="Where images that kOS builds were pushed to, such as host:5000/kos.")
    ] = "",
    environment: options.Environment = None,
    site: options.Site = None,
    user: options.User = None,
    configs: options.Configs = None,
) -> None:
    """Write a profile's services for a container platform: the same manifests, images and limits as on a node.

    What cannot run there is named, with the reason. Nothing is contacted, and no secret is written: templates of those
    that a service needs come along, without their values.

    quadlet and systemd show what a node gets instead.

    Examples:

      kai render --profile server --substrate compose --output server

      kai render --profile server --substrate kubernetes --registry registry.example/kos > server.yaml

      kai render --profile personal_node --substrate quadlet
    """
    data = read_facts(facts) if facts else node_facts.facts()
    machine = assemble.facts_from(data, str(facts) if facts else "facts of this machine")
    planned = assemble.plan(options.request(profile, environment, site, user, configs), machine)
    generation = assemble.generation(planned)
    if substrate in _ON_A_NODE:
        folder = _ON_A_NODE[substrate]
        files = {
            path.removeprefix(folder): content.decode()
            for path, content in sorted(generation.files.items())
            if path.startswith(folder)
        }
        _deliver(files, output)
        return
    found, left = workloads(planned.plan, generation.files, machine, registry)
    for row in left:
        errors.print(f"left out: {row.service}: {row.why}", style="yellow", markup=False, soft_wrap=True)
    if not found:
        errors.print(f"nothing of {profile} can run there", style="red", markup=False)
        raise typer.Exit(Exit.PREFLIGHT_FAILED)
    name = f"kos-{profile.replace('_', '-')}"
    if substrate is Substrate.compose:
        _deliver(compose(name, found), output)
    else:
        _deliver(kubernetes(name, found), output)
        for command in secret_commands(name, found):
            errors.print(f"before it is applied: {command}", style="dim", markup=False, soft_wrap=True)


def _deliver(files: dict[str, str], output: Path | None) -> None:
    if output is None:
        for path, text in files.items():
            beside = f"# {path}\n" if len(files) > 1 else ""
            print(f"{beside}{text}")
        return
    for path, text in files.items():
        target = output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    errors.print(f"wrote {len(files)} files to {output}", style="dim", markup=False)
