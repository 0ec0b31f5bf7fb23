# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai status`, `doctor`, `generations`, `logs`: ask nodes about themselves."""

from __future__ import annotations

import json
import subprocess
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from ..plugins.plugin_utils.assemble import COLLECTION
from ..plugins.plugin_utils.catalogue import load_catalogue
from ..plugins.plugin_utils.faults import nearest
from . import options
from .ansible import Target, ask
from .connection import shell_commands
from .exits import Exit
from .view import console, doctor_view, errors, generations_view, status_view

logs_app = typer.Typer(help="Read the journals of nodes.", no_args_is_help=True)


def status(inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False) -> None:
    """Show what runs and whether it is well.

    Exit code 1 when a service is not healthy, a change is under way, or nothing has been deployed.

    Examples:

      kai status -i inventories/lab

      kai status -i inventories/lab --json
    """
    answers, failed = ask(Target(inventory, limit), "ask", {"kos_query": "status"})
    _print(answers, lambda _host, answer: Group(status_view(answer), Text()), as_json)
    _leave(all(map(_is_well, answers.values())), failed)


def _is_well(answer: dict[str, Any]) -> bool:
    generation = answer["generation"]
    settled = generation is not None and generation["state"] != "switching"
    return settled and all(row["healthy"] for row in answer["services"])


def doctor(inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False) -> None:
    """Find drift and sickness, and name the command that mends each.

    Exit code 1 when there is something to mend.

    Example:

      kai doctor -i inventories/lab
    """
    answers, failed = ask(Target(inventory, limit), "ask", {"kos_query": "doctor"})
    where = f" -i {inventory}" if inventory else ""
    for findings in answers.values():
        for row in findings:
            for verb in ("deploy", "uninstall"):
                row["fix"] = row["fix"].replace(f"kai {verb}", f"kai {verb}{where}")
    _print(answers, doctor_view, as_json)
    _leave(not any(answers.values()), failed)


def generations(
    inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False
) -> None:
    """List the generations that nodes keep.

    Example:

      kai generations -i inventories/lab
    """
    answers, failed = ask(Target(inventory, limit), "ask", {"kos_query": "generations"})
    _print(answers, generations_view, as_json)
    _leave(True, failed)


def _print(answers: dict[str, Any], view: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answers, indent=1))
        return
    for host, answer in answers.items():
        console.print(view(host, answer))


def _leave(well: bool, failed: list[str]) -> None:
    """Say which hosts did not answer, and end with 1 when something is not as it should be."""
    for sentence in failed:
        errors.print(sentence, style="red", markup=False)
    if failed or not well:
        raise typer.Exit(Exit.UNEXPECTED)


def _units_of(service: str | None) -> list[str]:
    """The systemd units whose journal tells of `service`; all of kOS's without one. Raises typer.BadParameter."""
    if service is None:
        return ["kos-*"]
    services = load_catalogue(COLLECTION / "services").services
    if service not in services:
        raise typer.BadParameter(f"no service is called '{service}' ({nearest(service, services)})")
    names = [service, *services[service].requires]
    units = [unit.name for name in names for unit in services[name].units]
    if not units:
        raise typer.BadParameter(f"{service} has no process of its own, and so no journal")
    return units


@logs_app.command("tail")
def tail(
    service: Annotated[str | None, typer.Argument(help="Only this service.")] = None,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines to begin with.")] = 20,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f/-F", help="Go on as lines come.")] = True,
) -> None:
    """Follow the journal of kOS services.

    Examples:

      kai logs tail -i inventories/lab

      kai logs tail valkey -i inventories/lab --no-follow
    """
    units = [f"--unit={name}" for name in _units_of(service)]
    argv = ["journalctl", *units, f"--lines={lines}", "--no-pager", "--output=short-iso"]
    commands = shell_commands(Target(inventory, limit), [*argv, *(["--follow"] if follow else [])])
    processes = [subprocess.Popen(command) for command in commands.values()]
    try:
        codes = [process.wait() for process in processes]
    except KeyboardInterrupt:
        for process in processes:
            process.terminate()
        return
    if any(codes):
        raise typer.Exit(Exit.UNEXPECTED)
