# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai status`, `doctor`, `generations`, `logs`: ask nodes about themselves."""

from __future__ import annotations

import json
import subprocess
from typing import Annotated, Any

import typer

from ..plugins.plugin_utils.assemble import COLLECTION
from ..plugins.plugin_utils.faults import nearest
from . import options
from .ansible import Target, ask
from .connection import shell_commands
from .exits import Exit
from .view import console, doctor_view, generations_view, status_view

logs_app = typer.Typer(help="Read the journals of nodes.", no_args_is_help=True)


def status(inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False) -> None:
    """Show what runs and whether it is well.

    Exit code 1 when a service is not healthy, a change is under way, or nothing has been deployed.

    Examples:

      kai status -i inventories/lab

      kai status -i inventories/lab --json
    """
    answers = ask(Target(inventory, limit), "status")
    if as_json:
        print(json.dumps(answers, indent=1))
    else:
        for position, answer in enumerate(answers.values()):
            if position:
                console.print()
            console.print(status_view(answer))
    if not all(map(_is_well, answers.values())):
        raise typer.Exit(Exit.UNEXPECTED)


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
    answers: dict[str, list[dict[str, str]]] = ask(Target(inventory, limit), "doctor")
    where = f" -i {inventory}" if inventory else ""
    for findings in answers.values():
        for row in findings:
            row["fix"] = row["fix"].replace("kai deploy", f"kai deploy{where}")
    _print(answers, doctor_view, as_json)
    if any(answers.values()):
        raise typer.Exit(Exit.UNEXPECTED)


def generations(
    inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False
) -> None:
    """List the generations that nodes keep.

    Example:

      kai generations -i inventories/lab
    """
    _print(ask(Target(inventory, limit), "generations"), generations_view, as_json)


def _print(answers: dict[str, Any], view: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answers, indent=1))
        return
    for host, answer in answers.items():
        console.print(view(host, answer))


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
    known = {path.parent.name for path in (COLLECTION / "services").glob("*/service.yaml")}
    if service and service not in known:
        raise typer.BadParameter(f"no service is called '{service}' ({nearest(service, known)})")
    unit = f"kos-{service.replace('_', '-')}*" if service else "kos-*"
    argv = ["journalctl", f"--unit={unit}", f"--lines={lines}", "--no-pager", "--output=short-iso"]
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
