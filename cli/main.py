# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai`: one front for people on plans, nodes and the lab."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from ..plugins.plugin_utils.assemble import COLLECTION
from ..plugins.plugin_utils.documents import read_document
from ..plugins.plugin_utils.faults import ConfigurationError
from . import (
    backups,
    chat,
    cloud_init,
    comparison,
    config,
    configuration,
    deployment,
    encryption,
    lab,
    migration,
    models,
    nodes,
    render,
    trust,
    uninstall,
    updates,
    wheels,
)
from .ansible import AnsibleFailed
from .bundles import commands as bundles
from .exits import Exit
from .units import commands as units
from .view import errors, faults_view

app = typer.Typer(
    name="kai",
    help="Turn Debian 13 machines into kOS nodes, and look after them.",
    no_args_is_help=True,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        galaxy = read_document(COLLECTION / "galaxy.yml").data
        print(f"kai {galaxy['version']}")
        raise typer.Exit(Exit.OK)


app.command("plan")(configuration.plan)
app.command("validate")(configuration.validate)
app.command("facts")(configuration.facts)
app.command("render")(render.render)
app.command("schema", hidden=True)(configuration.schema)
app.command("deploy")(deployment.deploy)
app.command("rollback")(deployment.rollback)
app.command("update")(updates.update)
app.command("uninstall")(uninstall.uninstall)
app.command("status")(nodes.status)
app.command("doctor")(nodes.doctor)
app.command("generations")(nodes.generations)
app.command("compare")(comparison.compare)
app.command("chat")(chat.chat)
app.command("restore")(backups.restore)
app.command("verify")(backups.verify)
app.command("migrate")(migration.migrate)
app.add_typer(backups.backup_app, name="backup")
app.add_typer(cloud_init.app, name="cloud-init")
app.add_typer(config.app, name="config")
app.add_typer(encryption.app, name="encryption")
app.add_typer(models.app, name="model")
app.add_typer(nodes.logs_app, name="logs")
app.add_typer(trust.app, name="trust")
app.add_typer(units.app, name="unit")
app.add_typer(wheels.app, name="wheels")
app.add_typer(bundles.app, name="bundle")
app.add_typer(lab.app, name="lab")


def main() -> None:
    """Run `kai`; every expected failure is a sentence and an exit code, never a traceback."""
    try:
        app()
    except ConfigurationError as error:
        faults = [fault.as_dict() for fault in error.faults]
        _report({"faults": faults}, faults_view(faults))
        sys.exit(Exit.INVALID_CONFIGURATION)
    except AnsibleFailed as error:
        _report({"error": str(error)}, str(error))
        sys.exit(Exit.UNEXPECTED)


def _report(data: dict[str, Any], view: Any) -> None:
    if "--json" in sys.argv:
        print(json.dumps(data, indent=1))
    else:
        errors.print(view)


if __name__ == "__main__":
    main()
