# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai chat`: ask a node's language models, through its gateway."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from . import options
from .ansible import Target
from .connection import shell_commands
from .exits import Exit
from .view import errors

_NODE = ["python3", "-I", "-B", "/var/lib/kos/current/node"]


def chat(
    question: Annotated[str, typer.Argument(help="What to ask; `-` reads it from standard input.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Which of the node's models.")] = "default",
    inventory: options.Inventory = None,
    limit: options.Limit = None,
) -> None:
    """Ask a node's language model, and print the answer as it comes.

    The node asks itself, through its gateway and with its own API key, which does not leave it. How your programs ask:
    docs/models.md.

    Examples:

      kai chat "Who are you?" -i inventories/lab

      git diff | kai chat - --model small -i inventories/lab --limit node1
    """
    target = Target(inventory, limit)
    commands = shell_commands(target, [*_NODE, "chat", "--model", model])
    if len(commands) != 1:
        errors.print(f"Name the one node to ask: --limit {next(iter(commands))}", style="red", markup=False)
        raise typer.Exit(Exit.USAGE)
    (command,) = commands.values()
    if target.local and os.geteuid() != 0:
        command = ["sudo", *command]
    asked = sys.stdin.read() if question == "-" else question
    # The question is nobody else's to read: it is in no process list.
    done = subprocess.run(command, input=asked.encode(), check=False)
    if done.returncode != 0:
        raise typer.Exit(Exit.UNEXPECTED)
