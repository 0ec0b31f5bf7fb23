# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai migrate`: become another profile and keep the data."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from ..plugins.plugin_utils import migrations
from ..plugins.plugin_utils.assemble import COLLECTION
from . import options
from .ansible import Playbook, Target, log_path
from .backups import leave
from .uninstall import confirm, nodes_of
from .view import errors


def migrate(
    source: Annotated[str | None, typer.Option("--from", help="The profile or mode that the nodes run.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="The profile or mode that they become.")] = None,
    backup: Annotated[bool, typer.Option("--backup", help="Make a backup first.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Delete what the last migration kept.")] = False,
    environment: options.Environment = None,
    site: options.Site = None,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    accept_shortfall: options.AcceptShortfall = None,
    yes_i_know: options.YesIKnow = None,
    as_json: options.AsJson = False,
) -> None:
    """Make nodes another profile, along the paths of configs/migrations.yaml, and carry their data over.

    Services that both profiles run keep their data where it is. What another engine takes over is exported, imported
    and compared row by row. When it was interrupted, run it again. The source's data stays until --purge, which asks
    for each node's name.

    Examples:

      kai migrate --from development --to personal_node -i inventories/lab

      kai migrate --from standalone --to server --backup -i inventories/home

      kai migrate --purge -i inventories/home
    """
    where = Target(inventory, limit)
    if purge:
        if source or target or backup:
            raise typer.BadParameter("--purge ends the last migration and goes with no --from, --to or --backup")
        confirm(nodes_of(where), yes_i_know, "what the last migration kept, exports and the source's data,")
        leave(where, Playbook("purge_migration", where, {}, log=log_path("purge")), _purged, as_json)
    if source is None or target is None:
        raise typer.BadParameter("name both: --from development --to personal_node")
    way = migrations.path(COLLECTION / "configs", source, target)
    if not as_json:
        errors.print(f"[dim]{' → '.join(way)}[/dim]")
    accepted = options.accepted_shortfalls(accept_shortfall)
    variables: dict[str, Any] = options.playbook_variables(target, environment, site, accepted)
    variables |= {"kos_migrate_from": source, "kos_migrate_backup": backup}
    with errors.status("migrating …"):
        playbook = Playbook("migrate", where, variables, log=log_path("migrate"))
        leave(where, playbook, _report, as_json, last="migrate_import.end")


def _report(host: str, report: dict[str, Any]) -> RenderableType:
    lines = [Text(f"{host}: {report['from']} has become {report['to']}", style="green")]
    for name, row in report["moved"].items():
        rows = sum(thing["number"] for thing in row["compared"])
        tables = len(row["compared"])
        lines.append(Text(f"  {name} → {row['into']}: {rows} rows of {tables} tables, all equal"))
    if report["stayed"]:
        lines.append(Text(f"  unmoved: {', '.join(report['stayed'])}", style="dim"))
    for name, directories in report["kept"].items():
        lines.append(
            Text(f"  {name}: its data is kept in {', '.join(directories)} until kai migrate --purge", style="dim")
        )
    return Group(*lines)


def _purged(host: str, answer: dict[str, Any]) -> RenderableType:
    return Text(f"{host}: removed {', '.join(answer['removed']) or 'the exports'}")
