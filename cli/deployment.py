# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai deploy` and `kai rollback`: change nodes, show the progress, and say plainly how it ended."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..plugins.module_utils.node import facts as node_facts
from ..plugins.plugin_utils import assemble, hardware, layers, own_node
from ..plugins.plugin_utils.assemble import COLLECTION
from . import options
from .ansible import Playbook, Target, log_path, nobody, terminable
from .exits import Exit
from .view import changes_view, console, counted, errors, faults_view, preflight_view, stopped_view

# From the most to the least demanding; `--auto-detect` takes the first whose minimum the machine meets.
CANDIDATES = ("personal_node", "development")
_PARTS = {
    "rootless_runtime": "rootless runtime",
    "kernel_extensions": "kernel extensions",
    "firewall": "firewall",
    "base_services": "base services",
    "agent_modules": "agents",
    "environment_adapters": "adapters",
    "intrusion_detection": "intrusion detection",
    "hardening": "hardening",
}


def deploy(
    profile: options.Profile = None,
    auto_detect: Annotated[
        bool, typer.Option("--auto-detect", help="Choose the profile by this machine's size.")
    ] = False,
    environment: options.Environment = None,
    site: options.Site = None,
    user: options.User = None,
    configs: options.Configs = None,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    vault_password_file: options.VaultPasswordFile = None,
    ask_vault_pass: options.AskVaultPassword = False,
    check: Annotated[bool, typer.Option("--check", help="Say what would change; change nothing.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Log the text of every file that differs.")] = False,
    accept_shortfall: options.AcceptShortfall = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the data of services that are no longer asked for.")
    ] = False,
    bundle: options.Bundle = None,
    as_json: options.AsJson = False,
) -> None:
    """Make nodes what their profile says, as one transaction that goes back by itself when it fails.

    Examples:

      kai deploy --profile personal_node -i inventories/lab

      kai deploy -i inventories/lab --check

      kai deploy --auto-detect

      kai deploy -i inventories/home --env production --ask-vault-pass

      kai deploy -i inventories/home --bundle home.kos
    """
    if auto_detect:
        profile = _detected(profile)
    accepted = options.accepted_shortfalls(accept_shortfall)
    inventory = inventory or (None if profile else own_node.inventory())
    if not profile and not inventory:
        raise typer.BadParameter("name one: --profile personal_node, or --auto-detect")
    given = options.playbook_variables(profile, environment, site, accepted, user, configs)
    given |= {"kos_purge": True} if purge else {}
    given |= {"kos_bundle": str(bundle.absolute())} if bundle else {}
    password = options.vault_password(vault_password_file, ask_vault_pass)
    switches = [*(["--check"] if check else []), *(["--diff"] if diff else [])]
    target = Target(inventory, limit)
    Run(target, as_json, check).follow(Playbook("site", target, given, switches, log_path("deploy"), password))


def rollback(
    number: Annotated[int | None, typer.Argument(help="The generation; default: the one before the current.")] = None,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
) -> None:
    """Make an earlier generation current again, through the same gate as a deploy.

    Examples:

      kai rollback -i inventories/lab

      kai rollback 3 -i inventories/lab --limit node1
    """
    variables = {"kos_generation": number} if number is not None else {}
    target = Target(inventory, limit)
    Run(target, as_json, check=False).follow(Playbook("rollback", target, variables, [], log_path("rollback")))


def _detected(profile: str | None) -> str:
    if profile:
        raise typer.BadParameter("--auto-detect and --profile exclude each other")
    facts = assemble.facts_from(node_facts.facts(), "facts of this machine")
    for name in CANDIDATES:
        deployment = layers.load_deployment(COLLECTION / "configs", name)
        if not hardware.shortfalls(facts, deployment.minimum, set()):
            errors.print(f"This machine suits [bold]{name}[/bold]: it meets the profile's minimum.")
            return name
    errors.print(
        f"[red]This machine is below the minimum of {' and '.join(CANDIDATES)}:[/red] name a --profile yourself."
    )
    raise typer.Exit(Exit.PREFLIGHT_FAILED)


def exit_code(event: dict[str, Any]) -> Exit:
    """What an event of a deploy makes of a run's exit code, where another command deploys on its way."""
    name = event["event"]
    if name == "configuration.invalid":
        return Exit.INVALID_CONFIGURATION
    if name == "preflight.failed" or event.get("no_room"):
        return Exit.PREFLIGHT_FAILED
    if "reverted" in event:
        return Exit.REVERTED if event["reverted"] else Exit.NOT_REVERTED
    if name in ("stage.failed", "commit.failed"):
        return Exit.REVERTED
    return Exit.UNEXPECTED if "msg" in event else Exit.OK


class Run:
    """Follows a playbook's events, prints progress, and remembers what decides the exit code."""

    def __init__(self, target: Target, as_json: bool, check: bool) -> None:
        self._target = target
        self._as_json = as_json
        self._check = check
        self._began = time.monotonic()
        self._events: list[dict[str, Any]] = []
        self._exit = Exit.OK

    def follow(self, playbook: Playbook) -> None:
        """Print what happens until the playbook ends, then leave with its exit code."""
        try:
            with terminable(), errors.status("reading hardware facts …") as spinner:
                for event in playbook.events():
                    if event is not None:
                        self._events.append(event)
                        self._show(event, spinner)
        except KeyboardInterrupt:
            playbook.interrupt()
            errors.print(stopped_view([event for event in playbook.events() if event]), markup=False, style="yellow")
            raise typer.Exit(Exit.UNEXPECTED) from None
        code = playbook.wait()
        if not self._events and code == 0:
            self._fail(Exit.UNEXPECTED, nobody(self._target))
        elif code != 0 and self._exit is Exit.OK:
            self._fail(Exit.UNEXPECTED, f"{playbook.said()}\nAnsible's log: {playbook.log}")
        if self._as_json:
            print(json.dumps({"exit": int(self._exit), "events": self._events}, indent=1))
        elif self._exit in (Exit.REVERTED, Exit.NOT_REVERTED):
            errors.print(f"[dim]Ansible's log: {playbook.log}[/dim]")
        raise typer.Exit(self._exit)

    def _fail(self, code: Exit, text: str) -> None:
        """Remember the worst exit code so far and say why."""
        self._exit = max(self._exit, code)
        errors.print(text, style="red", markup=False)

    def _show(self, event: dict[str, Any], spinner: Any) -> None:
        handler = getattr(self, "_on_" + event["event"].replace(".", "_"), None)
        if handler is not None:
            handler(event, spinner)

    def _say(self, text: str, host: str) -> None:
        if not self._as_json:
            elapsed = time.monotonic() - self._began
            errors.print(f"[dim]{elapsed:6.1f} s[/dim]  [bold]{host}[/bold]  {text}")

    def _on_unreachable(self, event: dict[str, Any], _spinner: Any) -> None:
        self._fail(Exit.UNEXPECTED, f"{event['host']}: {event['msg']}")

    def _on_configuration_invalid(self, event: dict[str, Any], _spinner: Any) -> None:
        first = self._exit is not Exit.INVALID_CONFIGURATION
        self._exit = max(self._exit, Exit.INVALID_CONFIGURATION)
        if not self._as_json and first:
            errors.print(faults_view(event["faults"]))

    def _on_preflight_failed(self, event: dict[str, Any], _spinner: Any) -> None:
        self._exit = max(self._exit, Exit.PREFLIGHT_FAILED)
        if not self._as_json:
            errors.print(f"{event['host']} cannot become {event['plan']['profile']}:", style="bold", markup=False)
            errors.print(preflight_view(event["plan"]["preflight"]))

    def _on_plan_ready(self, event: dict[str, Any], spinner: Any) -> None:
        services = ", ".join(row["name"] for row in event["plan"]["services"])
        self._say(f"plan of {event['plan']['profile']}: {services}", event["host"])
        spinner.update("comparing, fetching what is missing …")

    def _on_stage_end(self, event: dict[str, Any], _spinner: Any) -> None:
        if self._check:
            if not self._as_json:
                console.print(changes_view(event["host"], event["changes"], event["download_bytes"]))
            return
        if event.get("recovered"):
            self._say("[yellow]took back what an interrupted run had left[/yellow]", event["host"])
        changes = event["changes"]
        if not changes:
            self._say("[green]nothing to do[/green]", event["host"])
            return
        fetched = f", {event['download_bytes'] / 1e6:.0f} MB fetched" if event["download_bytes"] else ""
        packages = sum((row["kind"], row["action"]) == ("package", "install") for row in changes)
        installing = f"; installing {counted(packages, 'package')} …" if packages else ""
        self._say(f"{counted(len(changes), 'change')} staged{fetched}{installing}", event["host"])
        stopping = [row["name"].removesuffix(".service") for row in changes if row["action"] == "stop"]
        if stopping:
            self._say(f"[yellow]stopping: {', '.join(stopping)}[/yellow]", event["host"])
        going = [row["name"] for row in changes if (row["kind"], row["action"]) == ("package", "remove")]
        if going:
            self._say(
                f"[yellow]{counted(len(going), 'package')} to be removed after the commit[/yellow]", event["host"]
            )

    def _on_switch_begin(self, event: dict[str, Any], spinner: Any) -> None:
        spinner.update(f"switching {_PARTS[event['part']]} …")

    def _on_switch_end(self, event: dict[str, Any], _spinner: Any) -> None:
        names = ", ".join(f"{row['service']} {row['seconds']:.1f} s" for row in event["health"])
        self._say(f"{_PARTS[event['part']]}: [green]healthy[/green] [dim]{names}[/dim]", event["host"])

    def _on_commit_end(self, event: dict[str, Any], _spinner: Any) -> None:
        self._say(f"[green]generation {event['number']} committed[/green]", event["host"])
        for sentence in event.get("left", []):
            self._say(f"[yellow]not removed: {escape(sentence)}[/yellow]", event["host"])

    def _on_stage_failed(self, event: dict[str, Any], _spinner: Any) -> None:
        code = Exit.PREFLIGHT_FAILED if event.get("no_room") else Exit.REVERTED
        self._exit = max(self._exit, code)
        self._say(f"[red]{escape(event['msg'].rstrip('.'))}.[/red] Nothing was changed.", event["host"])

    def _on_commit_failed(self, event: dict[str, Any], _spinner: Any) -> None:
        if "reverted" in event:
            self._on_switch_failed(event, _spinner)
            return
        self._exit = max(self._exit, Exit.REVERTED)
        self._say(f"[red]not committed: {escape(event['msg'])}[/red] The node takes the change back.", event["host"])

    def _on_switch_failed(self, event: dict[str, Any], _spinner: Any) -> None:
        if "reverted" not in event:
            self._fail(Exit.UNEXPECTED, f"{event['host']}: {event['msg']}")
            return
        self._exit = max(self._exit, Exit.REVERTED if event["reverted"] else Exit.NOT_REVERTED)
        self._say(f"[red]{escape(event['msg'])}[/red]", event["host"])
        for row in event.get("health", []):
            if not row["healthy"] and not self._as_json:
                errors.print("\n".join(f"            {line}" for line in row["log"][-8:]), style="dim", markup=False)
        if event["reverted"]:
            self._say("[green]everything was taken back[/green]: the node runs what it ran before", event["host"])
        else:
            self._say("[red]NOT taken back[/red]: kai doctor says what is wrong", event["host"])

    _on_rollback_failed = _on_switch_failed

    def _on_uninstall_begin(self, _event: dict[str, Any], spinner: Any) -> None:
        spinner.update("stopping services, removing files, packages and users …")

    def _on_uninstall_failed(self, event: dict[str, Any], _spinner: Any) -> None:
        again = "run kai uninstall again: it goes on where it ended"
        self._fail(Exit.UNEXPECTED, f"{event['host']}: {event['msg']} ({again})")

    def _on_uninstall_end(self, event: dict[str, Any], _spinner: Any) -> None:
        answer = event["answer"]
        if not answer["removed"]:
            self._say("[green]there is no kOS on this machine[/green]", event["host"])
            return
        self._say("[green]kOS was removed[/green]", event["host"])
        for path in answer["kept"]:
            self._say(f"data kept: {path} [dim](kai uninstall --purge removes it)[/dim]", event["host"])
        for sentence in answer["left"]:
            self._fail(Exit.UNEXPECTED, f"{event['host']}: not removed: {sentence}")

    def _on_rollback_end(self, event: dict[str, Any], _spinner: Any) -> None:
        answer = event["answer"]
        self._say(f"[green]generation {answer['to']} is current again[/green], after {answer['from']}", event["host"])
