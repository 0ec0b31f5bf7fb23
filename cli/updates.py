# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai update`: renew the whole system of nodes that kos-install laid out, and go back to the one before."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from . import options
from .ansible import Playbook, Target, log_path
from .deployment import Run
from .view import counted


def update(
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    restart: Annotated[
        bool, typer.Option("--restart/--no-restart", help="Restart the node to try it; else its next start does.")
    ] = True,
    back: Annotated[bool, typer.Option("--back", help="Go back to the system before instead.")] = False,
    system: Annotated[int | None, typer.Option("--to", help="With --back: the number of the system.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Renew the whole system: base packages, kernel, initrd, in a copy beside what runs.

    The copy is tried at the next start. One that does not come up well is left by itself, and the node runs what it
    ran before (exit code 5).

    Examples:

      kai update -i inventories/home

      kai update -i inventories/home --limit node1 --no-restart

      kai update -i inventories/home --back
    """
    if system is not None and not back:
        raise typer.BadParameter("--to names a system to go --back to")
    variables: dict[str, Any] = {"kos_restart": restart, "kos_back": back}
    variables |= {"kos_system": system} if system is not None else {}
    target = Target(inventory, limit)
    run = UpdateRun(target, as_json, check=False)
    run.will_restart = restart and not target.local
    run.follow(Playbook("update", target, variables, [], log_path("update")))


class UpdateRun(Run):
    """Follows the events of an update."""

    will_restart = True

    def _on_prepare_begin(self, _event: dict[str, Any], spinner: Any) -> None:
        spinner.update("upgrading the packages of a copy of the system …")

    def _on_prepare_end(self, event: dict[str, Any], _spinner: Any) -> None:
        answer = event["answer"]
        if answer["slot"] is None:
            self._say("[green]every package is up to date[/green]", event["host"])
            return
        packages, kernel = counted(len(answer["packages"]), "package"), escape(answer["kernel"])
        self._say(f"system {answer['slot']} is ready: {packages} renewed, kernel {kernel}", event["host"])

    def _on_publish_end(self, event: dict[str, Any], spinner: Any) -> None:
        self._restarting(event, spinner, f"system {event['answer']['slot']} is tried")

    def _on_back_end(self, event: dict[str, Any], spinner: Any) -> None:
        self._restarting(event, spinner, f"system {event['answer']['to']} is chosen")

    def _restarting(self, event: dict[str, Any], spinner: Any, what: str) -> None:
        if self.will_restart:
            spinner.update("restarting; an encrypted disk may wait for its passphrase …")
        else:
            self._say(f"{what} at the next start: systemctl reboot", event["host"])

    def _on_proved_end(self, event: dict[str, Any], _spinner: Any) -> None:
        self._say(f"[green]system {event['answer']['slot']} came up well and is kept[/green]", event["host"])

    def _on_proved_failed(self, event: dict[str, Any], spinner: Any) -> None:
        self._on_switch_failed(event, spinner)

    def _on_prepare_failed(self, event: dict[str, Any], spinner: Any) -> None:
        self._on_stage_failed(event, spinner)

    _on_publish_failed = _on_back_failed = _on_prepare_failed
