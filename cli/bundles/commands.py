# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai bundle`: one signed archive with everything that a deploy would fetch."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ...plugins.module_utils.node import facts as node_facts
from ...plugins.module_utils.node import models, trust
from ...plugins.module_utils.node import store as generations
from ...plugins.module_utils.node.files import NodeError
from ...plugins.plugin_utils import assemble, bundles, signing, unit_store
from ...plugins.plugin_utils.bundles import Bundle
from ...plugins.plugin_utils.documents import read_text
from ...plugins.plugin_utils.faults import ConfigurationError, Fault
from ...plugins.plugin_utils.hardware import RESOURCES, Facts
from .. import options
from ..ansible import Target
from ..configuration import fleet_of, planned_hosts
from ..exits import Exit
from ..units.tools import ToolFailed
from ..view import bundle_view, console, errors, size
from . import build as building
from . import debs
from .build import Wanted

app = typer.Typer(
    help="Deploy with no network: one signed file holds all that nodes would fetch.",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The bundle.")]


@app.command()
def build(
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")],
    profile: options.Profile = None,
    environment: options.Environment = None,
    site: options.Site = None,
    user: options.User = None,
    configs: options.Configs = None,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    facts: Annotated[
        Path | None, typer.Option("--facts", help="Facts as JSON (kai facts): of one machine, or of many by host.")
    ] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="amd64 or arm64: for any machine of it that has no GPU.")
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option("--model", exists=True, dir_okay=False, help="A language model (GGUF) to take along; repeatable."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Gather the Debian packages, container images and wheels that nodes would fetch into one signed archive.

    Which nodes: those of an inventory, those of --facts, or any of an architecture; without one of these, the machine
    kai runs on. All must have one architecture. The packages are fetched with this machine's apt, images and wheels
    come from the unit store. The key that signs generations signs the bundle.

    Examples:

      kai bundle build --profile development --arch amd64 --output development.kos

      kai bundle build -i inventories/home --model small.gguf --output home.kos

      kai deploy -i inventories/home --bundle home.kos
    """
    began = time.monotonic()
    if sum(bool(given) for given in (inventory, facts, arch)) > 1:
        raise typer.BadParameter("-i, --facts and --arch exclude each other")
    if inventory:
        wanted = _of_inventory(
            Target(inventory, limit),
            # Whether a machine is large enough is asked when it is deployed.
            options.playbook_variables(profile, environment, site, frozenset(RESOURCES), user, configs),
        )
    else:
        if not profile:
            raise typer.BadParameter("name one: --profile personal_node")
        request = options.request(profile, environment, site, user, configs)
        wanted = building.planned(request, _machines(facts, arch))
    _refuse_mixed(wanted)
    try:
        signer = signing.signer()
        with errors.status("fetching packages, gathering …"):
            found = debs.fetch(building.packages(wanted), wanted[0].architecture, _cache())
            epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
            building.build(wanted, found, _models(model or []), output, unit_store.store_path(), signer, epoch)
        _show(output, as_json, f"made in {time.monotonic() - began:.0f} s")
    except (ToolFailed, unit_store.StoreBroken, signing.SigningFailed, NodeError, OSError) as error:
        raise _refusal(error) from error


@app.command()
def verify(
    file: File,
    signer: Annotated[
        Path | None, typer.Option("--signer", help="Public key of who should have made it; default: this controller's.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Prove a bundle: its signer, its list of contents, and every byte of every file.

    A node proves what it takes of a bundle in the same way, against the keys that it trusts.

    Examples:

      kai bundle verify home.kos

      kai bundle verify home.kos --signer office.pub
    """
    try:
        public = read_text(signer) if signer else signing.signer().public
        key, comment = trust.parse_key(public)
        with bundles.opened(file) as bundle:
            bundle.verify({comment or "signer": key})
            data = _described(bundle)
    except (NodeError, signing.SigningFailed, OSError) as error:
        raise _refusal(error) from error
    if as_json:
        print(json.dumps(data, indent=1))
        return
    count = len(data["content"])
    console.print(f"[green]✓[/green] {file}: {count} files, all as {comment or trust.fingerprint(key)} signed them")


@app.command()
def inspect(file: File, as_json: options.AsJson = False) -> None:
    """Show what a bundle holds and what it was made for. Its signature is not looked at: kai bundle verify does that.

    Examples:

      kai bundle inspect home.kos

      kai bundle inspect home.kos --json
    """
    try:
        _show(file, as_json)
    except (NodeError, OSError) as error:
        raise _refusal(error) from error


def _show(file: Path, as_json: bool, more: str = "") -> None:
    with bundles.opened(file) as bundle:
        data = _described(bundle)
    if as_json:
        print(json.dumps(data, indent=1))
        return
    console.print(bundle_view(data))
    if more:
        errors.print(f"{file}: {size(file.stat().st_size)}, {more}", style="dim", markup=False)


def _described(bundle: Bundle) -> dict[str, Any]:
    return {"id": bundle.identity, "size": bundle.path.stat().st_size, **bundle.manifest}


def _machines(facts: Path | None, arch: str | None) -> dict[str, Facts]:
    """The machines that a bundle is for: those of a file of facts, any of an architecture, or this one."""
    if facts:
        return fleet_of(facts)
    if arch:
        return building.any_machine(arch)
    return {"": assemble.facts_from(node_facts.facts(), "facts of this machine")}


def _of_inventory(target: Target, variables: dict[str, Any]) -> list[Wanted]:
    """The generations of an inventory's hosts, as their own variables make them."""
    found: dict[str, Wanted] = {}
    for event in planned_hosts("plan", target, variables):
        if event["event"] == "preflight.failed":
            said = f"{event['host']} is not fit for {event['plan']['profile']}: kai plan -i says why"
            raise ConfigurationError([Fault(said)])
        content = generations.verified_files(Path(event["archive"]).read_bytes(), event["id"])
        found[event["id"]] = Wanted(event["id"], json.loads(content["manifest.json"]), event["architecture"])
    return list(found.values())


def _models(paths: list[Path]) -> list[Path]:
    """These files, each a model of its own name. Raises NodeError, OSError, typer.BadParameter."""
    for path in paths:
        models.require_gguf(str(path))
    if len({path.stem.lower() for path in paths}) != len(paths):
        raise typer.BadParameter("two of the models have one name: rename a file")
    return paths


def _refuse_mixed(wanted: list[Wanted]) -> None:
    kinds = sorted({one.architecture for one in wanted})
    if len(kinds) != 1:
        said = f"these machines are {' and '.join(kinds)}: a bundle is for one architecture, so name some with --limit"
        raise typer.BadParameter(said)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kos" / "bundles"


def _refusal(error: Exception) -> typer.Exit:
    errors.print(str(error), style="red", markup=False)
    return typer.Exit(Exit.UNEXPECTED)
