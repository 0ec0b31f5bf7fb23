# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai backup`, `restore` and `verify`: encrypted snapshots of nodes, and the way back."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from . import options
from .ansible import AnsibleFailed, Playbook, Target, chosen, log_path, nobody
from .deployment import exit_code
from .exits import Exit
from .view import backup_view, console, errors, restore_view, snapshots_view, verify_view

backup_app = typer.Typer(help="Back up nodes.", invoke_without_command=True)
key_app = typer.Typer(help="The keys that belong to a node's backups.", no_args_is_help=True)
backup_app.add_typer(key_app, name="key")

KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="The file that `kai backup key export` wrote.", exists=True, dir_okay=False),
]


@backup_app.callback()
def backup(
    context: typer.Context,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    listing: Annotated[bool, typer.Option("--list", help="List the snapshots; make none.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Store one encrypted snapshot of all services, or list the snapshots.

    The repository is the profile's (backup.repository). Exit code 1 when a service is missing from the snapshot.

    Examples:

      kai backup -i inventories/lab

      kai backup --list -i inventories/lab
    """
    if context.invoked_subcommand is not None:
        return
    target = Target(inventory, limit)
    if listing:
        leave(
            target, Playbook("backup", target, {"kos_query": "list"}, log=log_path("backup")), snapshots_view, as_json
        )
    with errors.status("backing up …"):
        leave(target, Playbook("backup", target, {"kos_query": "run"}, log=log_path("backup")), backup_view, as_json)


@key_app.command("export")
def export(
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write it to this file, for its owner only.")] = None,
) -> None:
    """Show the key of a node's backups, once, for you to keep away from the node.

    Without it nobody can restore them when the node is gone. One node at a time.

    Examples:

      kai backup key export -i inventories/home --limit node1 --to node1.key
    """
    if to is None and not sys.stdout.isatty():
        raise typer.BadParameter("this is no terminal: name a file with --to")
    target = Target(inventory, limit)
    if not target.local and len(names := chosen(target)) > 1:
        raise typer.BadParameter(f"each node has a key of its own: choose one of {', '.join(names)} with --limit")
    with outlet(to) as descriptor:
        found, failed, worst = answers(target, Playbook("backup", target, {"kos_query": "export_key"}))
        for key in found.values():
            _hand_out(key, descriptor)
    for host in found:
        errors.print(
            f"[yellow]This opens every backup of {host}. Keep it where you will find it when {host} is gone,"
            " and where nobody else does.[/yellow]"
        )
    if found:
        # Only now: a key that nobody holds must not count as kept.
        _known, unmarked, later = answers(target, Playbook("backup", target, {"kos_query": "key_exported"}))
        failed, worst = [*failed, *unmarked], max(worst, later)
    end(failed, worst)


@contextlib.contextmanager
def outlet(path: Path | None) -> Iterator[int | None]:
    """The new file that takes the key, open; removed again where none came. None without a path."""
    if path is None:
        yield None
        return
    descriptor = _new_file(path)
    try:
        yield descriptor
    finally:
        if os.fstat(descriptor).st_size == 0:
            path.unlink()
        os.close(descriptor)


def _new_file(path: Path) -> int:
    """A new file for its owner only, open. Raises typer.BadParameter where it cannot be made."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise typer.BadParameter(f"{path} exists: name another file, a key is never replaced") from error
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}") from error


def _hand_out(key: str, descriptor: int | None) -> None:
    """Put the key into the open file, on disk when this returns, or show it."""
    if descriptor is None:
        print(key, flush=True)
        return
    with open(descriptor, "w", encoding="utf-8", closefd=False) as stream:
        stream.write(f"{key}\n")
        stream.flush()
        os.fsync(descriptor)


@key_app.command("public")
def public(inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False) -> None:
    """Show the key by which a node logs in to an SFTP repository: authorise it there.

    Example:

      kai backup key public -i inventories/home
    """
    target = Target(inventory, limit)
    leave(target, Playbook("backup", target, {"kos_query": "public_key"}), lambda _host, key: Text(key), as_json)


def restore(
    snapshot: Annotated[str, typer.Argument(help="A snapshot's id; default: the newest complete one.")] = "latest",
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    service: Annotated[list[str] | None, typer.Option("--service", help="Only this service; may be repeated.")] = None,
    into_fresh: Annotated[bool, typer.Option("--into-fresh", help="Deploy the node first, with its old key.")] = False,
    key_file: KeyFile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace data, after a safety copy.")] = False,
    profile: options.Profile = None,
    environment: options.Environment = None,
    site: options.Site = None,
    accept_shortfall: options.AcceptShortfall = None,
    as_json: options.AsJson = False,
) -> None:
    """Bring a snapshot's data back into a node's services.

    Refuses where services hold data, unless told to --overwrite. When it was interrupted, run it again.

    Examples:

      kai restore -i inventories/lab --overwrite

      kai restore --into-fresh --key-file node1.key -i inventories/home --limit node1

      kai restore 4f2a9c1e --service postgresql --overwrite -i inventories/lab
    """
    if into_fresh and key_file is None:
        raise typer.BadParameter("a fresh node does not know the old one's key: --key-file (kai backup key export)")
    accepted = options.accepted_shortfalls(accept_shortfall)
    variables: dict[str, Any] = options.playbook_variables(profile, environment, site, accepted)
    variables |= {"kos_snapshot": snapshot, "kos_overwrite": overwrite, "kos_into_fresh": into_fresh}
    if service:
        variables["kos_services"] = service
    if key_file:
        variables["kos_secrets"] = {"restic.password": key_file.read_text(encoding="utf-8").strip()}
    target = Target(inventory, limit)
    with errors.status("restoring …"):
        leave(
            target,
            Playbook("restore", target, variables, log=log_path("restore")),
            restore_view,
            as_json,
            "restore.end",
        )


def verify(
    snapshot: Annotated[str, typer.Argument(help="A snapshot's id; default: the newest complete one.")] = "latest",
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    share: Annotated[str, typer.Option("--data", help="How much of the repository's data to read.")] = "10%",
    as_json: options.AsJson = False,
) -> None:
    """Prove that backups can be restored: check the repositories, lay a snapshot down, compare each service.

    Touches no service. Exit code 1 when something is damaged.

    Examples:

      kai verify -i inventories/lab

      kai verify --data 100% -i inventories/lab
    """
    variables = {"kos_query": "verify", "kos_snapshot": snapshot, "kos_share": share}
    target = Target(inventory, limit)
    with errors.status("verifying …"):
        leave(target, Playbook("backup", target, variables, log=log_path("verify")), verify_view, as_json)


def answers(target: Target, playbook: Playbook, last: str = "") -> tuple[dict[str, Any], list[str], Exit]:
    """What each host answered, a sentence for each that failed, and the worst exit code of them.

    Raises AnsibleFailed when none said anything.
    """
    found: dict[str, Any] = {}
    failed = []
    worst = Exit.OK
    for event in playbook.events():
        if event is None:
            continue
        worst = max(worst, exit_code(event))
        if event["event"] in ("configuration.invalid", "preflight.failed"):
            failed.append(f"{event['host']}: {playbook.said()}")
        elif "msg" in event:
            failed.append(f"{event['host']}: {event['msg']}")
        elif "answer" in event and last in ("", event["event"]):
            found[event["host"]] = event["answer"]
    code = playbook.wait()
    if not found and not failed:
        raise AnsibleFailed(nobody(target) if code == 0 else playbook.said())
    if code != 0 and worst is Exit.OK:
        worst = Exit.UNEXPECTED
    return found, failed, worst


def leave(target: Target, playbook: Playbook, view: Any, as_json: bool, last: str = "") -> None:
    """Print every host's answer (to the event `last`, where several answer) and end with the exit code."""
    found, failed, worst = answers(target, playbook, last)
    if as_json:
        print(json.dumps({**found, **({"failed": failed} if failed else {})}, indent=1))
    else:
        for host, answer in found.items():
            console.print(view(host, answer))
    well = all(answer.get("ok", True) for answer in found.values() if isinstance(answer, dict))
    end(failed, worst if well else max(worst, Exit.UNEXPECTED))


def end(failed: list[str], worst: Exit) -> None:
    """Print what failed, and end with the exit code."""
    for sentence in failed:
        errors.print(sentence, style="red", markup=False)
    raise typer.Exit(worst)
