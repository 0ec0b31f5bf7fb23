# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai compare`: why two nodes are not each other's equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..plugins.plugin_utils import comparison
from . import options
from .ansible import Target, ask
from .exits import Exit
from .view import comparison_view, console, errors

# A saved composition is told from a host by its name's end.
_SUFFIX = ".json"


def compare(
    nodes: Annotated[
        list[str] | None,
        typer.Argument(metavar="NODE|FILE…", help="Hosts of the inventory, or files that --save wrote."),
    ] = None,
    inventory: options.Inventory = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FOLDER", help="Keep what each node is made of, for a comparison later."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say in which points nodes differ: generation, files, packages, drift; each with the first one named.

    Each node computes the id of its generation from its own disk. Packages that the generation names must have equal
    versions; those of the rest of the system, and the machines' names, addresses and sizes, are told and not judged.
    Without an inventory, this machine is compared with the files. A file holds no secret.

    Exit code 1 when two are not equal.

    Examples:

      kai compare node1 node2 -i inventories/lab

      kai compare node1 -i inventories/lab --save kept

      kai compare kept/node1.json node2 -i inventories/lab --json
    """
    found = _compositions(nodes or [], inventory, save)
    if len(found) < 2:
        if save:
            return
        raise typer.BadParameter("name two nodes, or files that --save wrote: one alone differs from nothing")
    (name, first), *others = found
    rows = [comparison.compare(first, other, (name, called)).as_dict() for called, other in others]
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        console.print(*map(comparison_view, rows), sep="\n")
    if not all(row["equal"] for row in rows):
        raise typer.Exit(Exit.UNEXPECTED)


def _compositions(nodes: list[str], inventory: str | None, save: Path | None) -> list[tuple[str, Any]]:
    """What was named, in that order. Raises typer.BadParameter, AnsibleFailed, typer.Exit."""
    hosts = [name for name in nodes if not name.endswith(_SUFFIX)]
    if hosts and not inventory:
        raise typer.BadParameter(f"{hosts[0]}: a node is a host of an inventory (-i), a file ends in {_SUFFIX}")
    asked = _asked(Target(inventory, ",".join(hosts) or None)) if hosts or not inventory else {}
    if save:
        save.mkdir(parents=True, exist_ok=True)
        for name, found in asked.items():
            path = save / f"{name}{_SUFFIX}"
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            errors.print(f"{path}: what {name} is made of", style="dim", markup=False)
    order = nodes if hosts else [*asked, *nodes]
    return [(name, asked[name] if name in asked else _read(Path(name))) for name in order]


def _asked(target: Target) -> dict[str, Any]:
    """What each node says. Leaves where one did not answer: a comparison without it would be another one."""
    answers, failed = ask(target, "ask", {"kos_query": "composition"})
    for sentence in failed:
        errors.print(sentence, style="red", markup=False)
    if failed:
        raise typer.Exit(Exit.UNEXPECTED)
    return answers


def _read(path: Path) -> Any:
    """A saved composition. Raises typer.BadParameter."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict) or data.get("format") != comparison.FORMAT:
        raise typer.BadParameter(f"{path} is not what `kai compare --save` of this release writes: save it again")
    return data
