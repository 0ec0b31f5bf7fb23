# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai trust`: whose generations nodes accept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..plugins.module_utils.node import trust as keys
from ..plugins.module_utils.node.files import NodeError
from ..plugins.plugin_utils import signing
from ..plugins.plugin_utils.documents import read_text
from . import options
from .ansible import Target, ask
from .exits import Exit
from .view import console, errors, trust_view

app = typer.Typer(help="Say whose generations nodes accept. Generations are signed with Ed25519.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What the key is called on the nodes.")]


@app.command("list")
def list_(inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False) -> None:
    """List the keys that nodes trust, and which of them signed what runs.

    Example:

      kai trust list -i inventories/lab
    """
    _ask(Target(inventory, limit), {}, as_json)


@app.command()
def add(
    name: Name,
    key: Annotated[Path, typer.Argument(help="File with the public key (one line).")],
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
) -> None:
    """Trust one more key; `kai trust key` on the other controller prints it.

    Example:

      kai trust add office office.pub -i inventories/lab
    """
    try:
        public, _comment = keys.parse_key(read_text(key))
    except NodeError as error:
        raise typer.BadParameter(f"{key}: {error}") from error
    variables = {"kos_trust_state": "present", "kos_trust_name": name, "kos_trust_key": public}
    _ask(Target(inventory, limit), variables, as_json)


@app.command()
def remove(
    name: Name, inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False
) -> None:
    """No longer trust a key. What runs goes on running; what only this key signed is not deployed again.

    Example:

      kai trust remove office -i inventories/lab
    """
    _ask(Target(inventory, limit), {"kos_trust_state": "absent", "kos_trust_name": name}, as_json)


@app.command("key")
def key_(as_json: options.AsJson = False) -> None:
    """Print this controller's own public key, which is made on first use.

    Example:

      kai trust key > office.pub
    """
    try:
        signer = signing.signer()
    except signing.SigningFailed as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(Exit.UNEXPECTED) from error
    public, _comment = keys.parse_key(signer.public)
    fingerprint = keys.fingerprint(public)
    if as_json:
        print(json.dumps({"path": str(signer.path), "public": signer.public, "fingerprint": fingerprint}, indent=1))
        return
    print(signer.public)
    errors.print(f"{fingerprint}; the private half is {signer.path}: back it up", style="dim", markup=False)


def _ask(target: Target, variables: dict[str, Any], as_json: bool) -> None:
    answers, failed = ask(target, "trust", variables)
    if as_json:
        print(json.dumps(answers, indent=1))
    else:
        for host, rows in answers.items():
            console.print(trust_view(host, rows))
    for sentence in failed:
        errors.print(sentence, style="red", markup=False)
    if failed:
        raise typer.Exit(Exit.UNEXPECTED)
