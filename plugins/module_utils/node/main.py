# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's own verbs, run as ``python3 -I -B /var/lib/kos/current/node VERB``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from typing import Any

from . import (
    backup,
    chat,
    cleanup,
    composition,
    drift,
    facts,
    files,
    integrity,
    models,
    rollback,
    servicedata,
    status,
    store,
    transaction,
    uninstall,
    watch,
)
from .encryption import verbs as encryption_verbs
from .files import NodeError, Root
from .journal import Journal, boot_id
from .machine import system_verbs
from .transaction import Request


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code (0 ok, 1 unexpected, 5 reverted, 6 not reverted)."""
    options = _parser().parse_args(arguments)
    root = Root(options.root)
    # Whoever is logged in may keep what they make to themselves; what is made here must be readable by daemons.
    os.umask(0o022)
    try:
        return int(options.run(root, options))
    except transaction.SwitchFailed as error:
        sys.stderr.write(f"{error}\n")
        return 5 if error.reverted else 6
    except (NodeError, OSError) as error:
        sys.stderr.write(f"{files.spoken(error) if isinstance(error, OSError) else error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kos-node", description=__doc__)
    parser.add_argument("--root", default="/", help="the root to act on")
    verbs = parser.add_subparsers(required=True)
    for name, run in (
        ("facts", _facts),
        ("status", _status),
        ("doctor", _doctor),
        ("generations", _generations),
        ("composition", _composition),
    ):
        verbs.add_parser(name).set_defaults(run=run)
    verbs.add_parser("serve-status").set_defaults(run=_serve)
    verbs.add_parser("boot").set_defaults(run=_boot)
    verbs.add_parser("watch").set_defaults(run=_watch)
    revert = verbs.add_parser("revert")
    revert.add_argument("--token")
    revert.add_argument("--overdue", action="store_true")
    revert.set_defaults(run=_revert)
    rollback = verbs.add_parser("rollback")
    rollback.add_argument("number", type=int, nargs="?")
    rollback.set_defaults(run=_rollback)
    remove = verbs.add_parser("uninstall")
    remove.add_argument("--confirm", default="", help="this node's host name")
    remove.add_argument("--purge", action="store_true", help="remove the data volumes too")
    remove.set_defaults(run=_uninstall)
    ask = verbs.add_parser("chat", help="ask the language models what standard input says")
    ask.add_argument("--model", default=models.DEFAULT)
    ask.set_defaults(run=_chat)
    verbs.add_parser("backup-run").set_defaults(run=_backup_run)
    verbs.add_parser("backup-settle").set_defaults(run=_backup_settle)
    verbs.add_parser("integrity-check").set_defaults(run=_integrity_check)
    verbs.add_parser("integrity-accept").set_defaults(run=_integrity_accept)
    for name in ("backup", "restore"):
        copy = verbs.add_parser(name)
        copy.add_argument("service")
        copy.add_argument("directory")
        copy.set_defaults(run=_copy_data, verb=name)
    system_verbs.add(verbs)
    encryption_verbs.add(verbs)
    return parser


def _print(data: Any) -> int:
    sys.stdout.write(json.dumps(data, indent=1) + "\n")
    return 0


def _facts(root: Root, _options: argparse.Namespace) -> int:
    return _print(facts.facts(root))


def _status(root: Root, _options: argparse.Namespace) -> int:
    return _print(status.status(root))


def _doctor(root: Root, _options: argparse.Namespace) -> int:
    return _print(drift.findings(root))


def _generations(root: Root, _options: argparse.Namespace) -> int:
    return _print(store.listing(root))


def _composition(root: Root, _options: argparse.Namespace) -> int:
    return _print(composition.composition(root))


def _serve(root: Root, _options: argparse.Namespace) -> int:
    status.serve(root)
    return 0


def _revert(root: Root, options: argparse.Namespace) -> int:
    health = transaction.revert(root, options.token, options.overdue)
    if health is None:
        sys.stdout.write("nothing to take back\n")
        return 0
    return 0 if all(row.healthy for row in health) else 6


def _rollback(root: Root, options: argparse.Namespace) -> int:
    return _print(rollback.rollback(root, options.number))


def _boot(root: Root, _options: argparse.Namespace) -> int:
    """After a start of the machine: take back what was interrupted, finish what an installer left pending."""
    journal = Journal(root)
    if journal.open and journal.begin["boot"] != boot_id():
        transaction.revert(root)
    pending = files.read_json(root.state("pending"), None)
    if pending:
        target = store.load(root, pending["generation"])
        if target is None:
            raise store.Refused("the pending generation is missing or was altered")
        transaction.deploy(root, Request(target.id, node=files.read_json(root.state("node.json"), {})))
        files.remove(root.state("pending"))
    active = store.current(root)
    if active is not None:
        # What a crash kept the last commit from removing.
        with files.lock(root, wait=True):
            cleanup.run(root, active.manifest)
    return 0


def _watch(root: Root, _options: argparse.Namespace) -> int:
    # Another run on the node comes first; the timer looks again.
    with contextlib.suppress(files.Busy):
        watch.look(root)
    return 0


def _uninstall(root: Root, options: argparse.Namespace) -> int:
    name = os.uname().nodename
    if options.confirm != name:
        raise uninstall.NotConfirmed(f"this takes kOS off {name}; to confirm, add: --confirm {name}")
    answer = uninstall.uninstall(root, options.purge)
    _print(answer)
    return 1 if answer["left"] else 0


def _chat(root: Root, options: argparse.Namespace) -> int:
    for words in chat.answer(root, sys.stdin.read(), options.model):
        sys.stdout.write(words)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def _copy_data(root: Root, options: argparse.Namespace) -> int:
    servicedata.copy_data(root, options.verb, options.service, options.directory)
    return 0


def _stop(_number: int, _frame: Any) -> None:
    raise SystemExit(1)


def _backup_run(root: Root, _options: argparse.Namespace) -> int:
    # Told to stop, it still puts everything back.
    signal.signal(signal.SIGTERM, _stop)
    record = backup.run(root)
    return _print({key: record[key] for key in ("snapshot", "added", "seconds", "window_seconds")})


def _integrity_check(root: Root, _options: argparse.Namespace) -> int:
    found = integrity.check(root)
    for row in found or []:
        sys.stdout.write(f"{row.path} {row.what}\n")
    return 0


def _integrity_accept(root: Root, _options: argparse.Namespace) -> int:
    integrity.accept(root)
    return 0


def _backup_settle(_root: Root, _options: argparse.Namespace) -> int:
    backup.settle()
    return 0
