# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai uninstall`: take kOS off nodes, once somebody has typed each one's name."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from . import options
from .ansible import AnsibleFailed, Playbook, Target, chosen, log_path
from .deployment import Run
from .exits import Exit
from .view import errors


def uninstall(
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the services' data too, for ever.")] = False,
    yes_i_know: options.YesIKnow = None,
    as_json: options.AsJson = False,
) -> None:
    """Take kOS off nodes and leave them as they were before; asks for each node's name.

    Data volumes and their users stay unless --purge is given. An uninstall that was interrupted goes on when it is
    run again. What Debian's own tools keep of it is listed in docs/uninstall.md.

    Examples:

      kai uninstall -i inventories/lab --limit node1

      kai uninstall -i inventories/lab --limit node1 --purge --yes-i-know node1
    """
    target = Target(inventory, limit)
    names = nodes_of(target)
    confirm(names, yes_i_know, "kOS and all data of its services" if purge else "kOS (the data of its services stays)")
    named = ["localhost"] if target.local else names
    playbook = Playbook("uninstall", target, {"kos_uninstall": named, "kos_purge": purge}, [], log_path("uninstall"))
    Run(target, as_json, check=False).follow(playbook)


def nodes_of(target: Target) -> list[str]:
    """The nodes by name. Raises AnsibleFailed when there is none."""
    if target.local:
        return [os.uname().nodename]
    names = chosen(target)
    if not names:
        raise AnsibleFailed("no such host in the inventory's group kos")
    return names


def confirm(names: list[str], given: str | None, what: str) -> None:
    """Leave unless every node that is to lose `what` was named. Raises typer.Exit (usage)."""
    if given is not None:
        unnamed = sorted(set(names) - {name.strip() for name in given.split(",")})
        if unnamed:
            _refuse(f"--yes-i-know does not name {', '.join(unnamed)}: nothing was removed.")
        return
    if not sys.stdin.isatty():
        _refuse(f"Nobody is here to type a name: add --yes-i-know {','.join(names)}. Nothing was removed.")
    for name in names:
        typed = typer.prompt(f"This removes {what} from {name}. Type its name to go on", default="", show_default=False)
        if typed.strip() != name:
            _refuse(f"That is not {name}: nothing was removed.")


def _refuse(sentence: str) -> None:
    errors.print(sentence, style="red", markup=False)
    raise typer.Exit(Exit.USAGE)
