# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai plan` and `kai validate`: what should run, and whether the configuration is right. Nothing is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from ..plugins.module_utils.node import facts as node_facts
from ..plugins.plugin_utils import assemble, layers
from ..plugins.plugin_utils.asks import Asks
from ..plugins.plugin_utils.assemble import Request
from ..plugins.plugin_utils.container_units import UnitTrust
from ..plugins.plugin_utils.documents import read_facts
from ..plugins.plugin_utils.faults import ConfigurationError, fault_from
from ..plugins.plugin_utils.hardening import Rules
from ..plugins.plugin_utils.hardware import Facts
from ..plugins.plugin_utils.images import ImageLock
from ..plugins.plugin_utils.manifest import Service
from ..plugins.plugin_utils.profile import Mode, Profile, Requirements, Settings
from ..plugins.plugin_utils.recipes import ImageBase, Recipe
from . import options
from .ansible import AnsibleFailed, Playbook, Target, ask, nobody
from .exits import Exit
from .view import console, errors, plan_view

_SCHEMAS: dict[str, type[BaseModel]] = {
    "profile": Profile,
    "layer": Settings,
    "mode": Mode,
    "requirements": Requirements,
    "service": Service,
    "asks": Asks,
    "hardening": Rules,
    "images": ImageLock,
    "image": Recipe,
    "image_base": ImageBase,
    "unit_trust": UnitTrust,
    "facts": Facts,
}

# A machine that can run anything: validation is about the configuration, not about hardware.
_ANY_MACHINE = {
    "os": {"id": "debian", "version": "13"}, "architecture": "amd64", "cpu": 1024, "memory_mb": 1 << 30,
    "disk_gb": 1 << 20, "gpus": ["nvidia"],
}  # fmt: skip


def plan(
    profile: options.Profile = None,
    facts: Annotated[
        Path | None, typer.Option("--facts", help="Facts as JSON: of one machine, or of many by host.")
    ] = None,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    environment: options.Environment = None,
    site: options.Site = None,
    user: options.User = None,
    configs: options.Configs = None,
    accept_shortfall: options.AcceptShortfall = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what would run, on what, and why.

    Without --facts or -i the plan is for the machine kai runs on. --facts takes what kai facts printed: of one
    machine, or of a whole fleet, planned once a kind of hardware without asking any host.

    Below the profile's minimum the plan is printed all the same, with every shortfall, and the exit code is 4.

    Examples:

      kai plan --profile personal_node

      kai plan --profile server --facts big.json --json

      kai plan -i inventories/lab
    """
    accepted = options.accepted_shortfalls(accept_shortfall)
    if inventory:
        variables = options.playbook_variables(profile, environment, site, accepted, user, configs)
        documents = _plans_of("plan", Target(inventory, limit), variables)
    else:
        if not profile:
            raise typer.BadParameter("name one: --profile personal_node")
        request = options.request(profile, environment, site, user, configs, accepted)
        fleet = fleet_of(facts) if facts else {"": assemble.facts_from(node_facts.facts(), "facts of this machine")}
        if list(fleet) != [""]:
            _plan_fleet(request, fleet, as_json)
            return
        documents = {"": assemble.plan(request, fleet[""]).as_dict()}
    if as_json:
        print(json.dumps(documents if inventory else documents[""], indent=1))
    else:
        _print_plans(documents)
    if not all(document["preflight"]["ok"] for document in documents.values()):
        raise typer.Exit(Exit.PREFLIGHT_FAILED)


def fleet_of(path: Path) -> dict[str, Facts]:
    """The machines of a file as `kai facts` prints it: one (named ``""``), or many by host."""
    data = read_facts(path)
    if "architecture" in data:
        return {"": assemble.facts_from(data, str(path))}
    return {host: assemble.facts_from(facts, f"{path}: {host}") for host, facts in data.items()}


def _plan_fleet(request: Request, fleet: dict[str, Facts], as_json: bool) -> None:
    """Plan each kind of machine once, and show which hosts share a plan."""
    groups = assemble.groups(assemble.plans(request, fleet))
    if as_json:
        print(json.dumps([{"hosts": hosts, "plan": planned.as_dict()} for hosts, planned in groups], indent=1))
    else:
        for hosts, planned in groups:
            more = f" and {len(hosts) - 5} more" if len(hosts) > 5 else ""
            console.print(f"{', '.join(hosts[:5])}{more}", style="bold")
            console.print(plan_view(planned.as_dict()))
    if any(planned.blocked for _hosts, planned in groups):
        raise typer.Exit(Exit.PREFLIGHT_FAILED)


def _plans_of(name: str, target: Target, variables: dict[str, Any]) -> dict[str, Any]:
    """The plan of every host of an inventory, as its own variables make it."""
    return {event["host"]: event["plan"] for event in planned_hosts(name, target, variables)}


def planned_hosts(name: str, target: Target, variables: dict[str, Any]) -> list[dict[str, Any]]:
    """What the playbook `name` says of each host's plan. Raises ConfigurationError, AnsibleFailed."""
    playbook = Playbook(name, target, variables)
    events = [event for event in playbook.events() if event]
    code = playbook.wait()
    for event in events:
        if event["event"] == "configuration.invalid":
            raise ConfigurationError([fault_from(fault) for fault in event["faults"]])
    unreachable = [f"{event['host']}: {event['msg']}" for event in events if event["event"] == "unreachable"]
    planned = [event for event in events if "plan" in event]
    if unreachable or not planned:
        raise AnsibleFailed("\n".join(unreachable) or (nobody(target) if code == 0 else playbook.said()))
    return planned


def _print_plans(documents: dict[str, Any]) -> None:
    """Hosts with the same plan share one table."""
    shown: dict[str, list[str]] = {}
    for host, document in documents.items():
        shown.setdefault(json.dumps(document, sort_keys=True), []).append(host)
    for text, names in shown.items():
        if len(documents) > 1:
            console.print(", ".join(names), style="bold")
        console.print(plan_view(json.loads(text)))


def validate(
    files: Annotated[list[Path] | None, typer.Argument(help="Profiles, modes, layers, environments, vaults.")] = None,
    profile: options.Profile = None,
    environment: options.Environment = None,
    site: options.Site = None,
    user: options.User = None,
    configs: options.Configs = None,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
) -> None:
    """Check configuration and name every fault at once: file, line, key, fix.

    With --profile or -i everything is checked that a deploy would stop at, on machines of any kind: a service that
    nobody provides, a port wanted twice, settings that exclude each other. No node is asked.

    Examples:

      kai validate configs/profiles/personal_node.yaml

      kai validate --profile personal_node --environment production

      kai validate -i inventories/lab
    """
    if not files and not profile and not inventory:
        raise typer.BadParameter("name files, --profile NAME or -i INVENTORY")
    checked = []
    faults = []
    for path in files or []:
        try:
            checked.append({"file": str(path), "kind": layers.validate_file(path)})
        except ConfigurationError as error:
            faults += error.faults
    try:
        checked += _valid_deployments(
            Target(inventory, limit) if inventory else None, profile, environment, site, user, configs
        )
    except ConfigurationError as error:
        faults += error.faults
    if faults:
        raise ConfigurationError(faults)
    if as_json:
        print(json.dumps({"valid": checked}, indent=1))
    else:
        for row in checked:
            console.print(f"[green]✓[/green] {row['file']}: valid {row['kind']}")


def _valid_deployments(
    target: Target | None,
    profile: str | None,
    environment: str | None,
    site: str | None,
    user: str | None,
    configs: Path | None,
) -> list[dict[str, str]]:
    """What was checked as far as its generation. Raises ConfigurationError."""
    if target:
        variables = options.playbook_variables(profile, environment, site, frozenset(), user, configs)
        hosts = _plans_of("validate", target, {**variables, "kos_hardware": _ANY_MACHINE})
        return [{"file": host, "kind": f"deployment of {document['profile']}"} for host, document in hosts.items()]
    if not profile:
        return []
    request = options.request(profile, environment, site, user, configs)
    for architecture in ("amd64", "arm64"):
        machine = assemble.facts_from({**_ANY_MACHINE, "architecture": architecture}, "validation")
        assemble.generation(assemble.plan(request, machine))
    return [{"file": profile, "kind": "deployment"}]


def facts(inventory: options.Inventory = None, limit: options.Limit = None) -> None:
    """Print the hardware facts that plans are made for, as one JSON document.

    Without -i those of this machine; `kai plan --facts` reads them. With -i a document for each host, by name.

    Examples:

      kai facts > node1.json

      kai facts -i inventories/lab
    """
    if not inventory:
        print(json.dumps(node_facts.facts(), indent=1))
        return
    answers, failed = ask(Target(inventory, limit), "ask", {"kos_query": "facts"})
    print(json.dumps(answers, indent=1))
    for sentence in failed:
        errors.print(sentence, style="red", markup=False)
    if failed:
        raise typer.Exit(Exit.UNEXPECTED)


def schema(folder: Annotated[Path, typer.Argument(help="Where to write the JSON Schemas.")]) -> None:
    """Write the JSON Schemas of profiles, layers, modes, services and facts, for editors."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (folder / f"{name}.json").write_text(text)


def schemas() -> dict[str, str]:
    """The JSON Schema of every kind of file, by name."""
    return {
        name: json.dumps(model.model_json_schema(), indent=1, sort_keys=True) + "\n" for name, model in _SCHEMAS.items()
    }
