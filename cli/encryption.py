# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai encryption`: encrypt the data of nodes that already run, unlock them, and look after their keys."""

from __future__ import annotations

import base64
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .ansible import Playbook, Target, chosen, log_path
from .backups import answers, end, leave, outlet
from .view import encryption_view, errors, moved_view, said_view, unlocked_view

app = typer.Typer(
    help="Encrypt the data of nodes that already run, unlock them, and look after their keys.", no_args_is_help=True
)
key_app = typer.Typer(help="What opens the data beside the passphrase.", no_args_is_help=True)
app.add_typer(key_app, name="key")


class Kind(StrEnum):
    """A kind of key."""

    TPM2 = "tpm2"
    FIDO2 = "fido2"
    TANG = "tang"
    RECOVERY = "recovery"


PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="Where the passphrase is, in one line; - is standard input. Else it is asked."
    ),
]
KindOfKey = Annotated[Kind, typer.Argument(help="Which kind of key.")]


@app.command("status")
def status(inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False) -> None:
    """Tell how the data of nodes are: encrypted or in clear, open or locked, and what opens them.

    Example:

      kai encryption status -i inventories/home
    """
    _ask(Target(inventory, limit), "status", {}, encryption_view, as_json)


@app.command("apply")
def apply(
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    target: Annotated[str, typer.Option("--target", help="Spare disk or partition, best by /dev/disk/by-id.")] = "",
    wipe: Annotated[str, typer.Option("--wipe", help="The same path again: what it holds may be lost.")] = "",
    file: Annotated[bool, typer.Option("--file", help="Make a file there instead, on the disk that is there.")] = False,
    size: Annotated[int, typer.Option("--size", help="Of that file, in MB; default: twice what the data need.")] = 0,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="A data directory that stays in clear.")] = None,
    passphrase_file: PassphraseFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Move the data of nodes into an encrypted volume, while their services run but for the last copy.

    Whatever stops it, the same command goes on from there. What the options leave out comes from the inventory's
    kos_encryption. The plain copies stay until `kai encryption discard`.

    Examples:

      kai encryption apply -i inventories/home --target /dev/disk/by-id/nvme-spare

      kai encryption apply -i inventories/home --target /srv/kos.luks --file --size 20000
    """
    given = {"target": target, "wipe": wipe, "file": file, "size_mb": size, "skip": skip or []}
    variables: dict[str, Any] = {"kos_encryption_passphrase": _secret(passphrase_file, "Passphrase", twice=True)}
    if target:
        variables["kos_encryption"] = given
    where = Target(inventory, limit)
    with errors.status("encrypting; services run but for the last copy …"):
        playbook = Playbook("encryption", where, variables, log=log_path("encryption"))
        leave(where, playbook, moved_view, as_json, "apply.end")


@app.command("unlock")
def unlock(
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    passphrase_file: PassphraseFile = None,
    by_itself: Annotated[
        bool, typer.Option("--by-itself", help="Try the machine's TPM, Tang server or FIDO2 key instead.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Open the data of nodes after a restart, over SSH, and start what waited for them.

    Takes the passphrase, a recovery key, or the PIN of the TPM.

    Example:

      kai encryption unlock -i inventories/home --limit node1
    """
    secret = "" if by_itself else _secret(passphrase_file, "Passphrase, recovery key or PIN")
    with errors.status("unlocking …"):
        variables = {"kos_encryption_passphrase": secret}
        _ask(Target(inventory, limit), "unlock", variables, unlocked_view, as_json)


@app.command("lock")
def lock(inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False) -> None:
    """Stop the services of nodes and close their data."""
    _ask(Target(inventory, limit), "lock", {}, said_view("locked: kai encryption unlock opens it"), as_json)


@app.command("rotate")
def rotate(
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: Annotated[
        Path | None, typer.Option("--new-passphrase-file", help="Where the new one is; else it is asked.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Give nodes another passphrase; the old one opens nothing any more, the header's copy included.

    Stopped half-way both open it, and the same command ends that.
    """
    variables = {"kos_encryption_passphrase": _secret(passphrase_file, "Old passphrase")}
    variables["kos_encryption_new_passphrase"] = _secret(new_passphrase_file, "New passphrase", twice=True)
    _ask(Target(inventory, limit), "rotate", variables, said_view("has another passphrase"), as_json)


@key_app.command("add")
def add_key(
    kind: KindOfKey,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    passphrase_file: PassphraseFile = None,
    pin: Annotated[
        bool, typer.Option("--pin", help="Ask for a PIN that the TPM wants beside its measurements.")
    ] = False,
    url: Annotated[str, typer.Option("--url", help="Of the Tang server.")] = "",
    thumbprint: Annotated[str, typer.Option("--thumbprint", help="Of the Tang server's key.")] = "",
) -> None:
    """Let another kind of key open the data; a recovery key is made and shown once.

    Examples:

      kai encryption key add tpm2 -i inventories/home

      kai encryption key add recovery -i inventories/home --limit node1
    """
    target = _one(Target(inventory, limit), "a recovery key") if kind is Kind.RECOVERY else Target(inventory, limit)
    variables = {"kos_key": kind.value, "kos_encryption_passphrase": _secret(passphrase_file, "Passphrase")}
    variables |= {"kos_tang_url": url, "kos_tang_thumbprint": thumbprint}
    variables["kos_encryption_pin"] = typer.prompt("PIN", hide_input=True, err=True) if pin else ""
    found, failed, worst = answers(target, _playbook(target, "add_key", variables))
    for host, answer in found.items():
        errors.print(f"[green]{host}: the key {kind.value} opens its data[/green]")
        if answer["recovery_key"]:
            print(answer["recovery_key"], flush=True)
            errors.print("[yellow]This opens everything: keep it away from the node. It is shown once.[/yellow]")
    end(failed, worst)


@key_app.command("remove")
def remove_key(
    kind: KindOfKey,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
) -> None:
    """Let keys of this kind open nothing any more."""
    done = said_view(f"the key {kind.value} opens nothing any more")
    _ask(Target(inventory, limit), "remove_key", {"kos_key": kind.value}, done, as_json)


@app.command("header")
def header(
    to: Annotated[Path, typer.Option("--to", help="Write it to this new file, for its owner only.")],
    inventory: options.Inventory = None,
    limit: options.Limit = None,
) -> None:
    """Keep a copy of the header of a node's volume: a damaged one makes all data unreadable.

    It opens with the keys of today: make a new one after each change of them, and destroy the old one.

    Example:

      kai encryption header -i inventories/home --limit node1 --to node1.luks-header
    """
    target = _one(Target(inventory, limit), "a header")
    with outlet(to) as descriptor:
        found, failed, worst = answers(target, _playbook(target, "header", {}))
        for content in found.values():
            with open(descriptor or 1, "wb", closefd=False) as stream:
                stream.write(base64.b64decode(content))
    end(failed, worst)


@app.command("discard")
def discard(
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Though the data were never unlocked after a restart.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove the plain copies that the move left: each file overwritten, then deleted.

    Refused until the data were unlocked once after a restart. On a solid-state disk old blocks may live on.
    """
    variables = {"kos_unproven": unproven}
    _ask(Target(inventory, limit), "discard", variables, said_view("the plain copies are removed"), as_json)


@app.command("undo")
def undo(inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False) -> None:
    """Take the data back out of the volume, which kOS then forgets; what is in it stays until it is written over."""
    _ask(Target(inventory, limit), "undo", {}, said_view("its data are in clear again"), as_json)


def _playbook(target: Target, query: str, variables: dict[str, Any]) -> Playbook:
    return Playbook("encryption", target, {"kos_query": query, **variables}, log=log_path("encryption"))


def _ask(target: Target, query: str, variables: dict[str, Any], view: Any, as_json: bool) -> None:
    leave(target, _playbook(target, query, variables), view, as_json)


def _one(target: Target, what: str) -> Target:
    """The target, if it is one node. Raises typer.BadParameter."""
    if not target.local and len(names := chosen(target)) > 1:
        raise typer.BadParameter(f"each node has {what} of its own: choose one of {', '.join(names)} with --limit")
    return target


def _secret(file: Path | None, what: str, twice: bool = False) -> str:
    """A secret from a file, standard input or the terminal. Raises typer.BadParameter."""
    if file is None and sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=True, confirmation_prompt=twice, err=True))
    try:
        standard = file is None or str(file) == "-"
        text = sys.stdin.readline() if standard or file is None else file.read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from error
    return text.removesuffix("\n")
