# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's verbs about its encrypted volume: ``encryption open`` at boot, and what systemd runs for the module."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from .. import store, system
from ..files import Busy, NodeError, Root
from . import keys, move, opening, record, state

UNIT = "kos-encryption-move"


def add(verbs: Any) -> None:
    """Add the verb ``encryption`` to the node's own."""
    parser = verbs.add_parser("encryption", help="the encrypted volume of this node's data")
    known = parser.add_subparsers(required=True)
    for name, run in (("open", _open), ("run", _run), ("settle", _settle), ("status", _status), ("unlock", _unlock)):
        known.add_parser(name).set_defaults(run=run)


def _open(root: Root, _options: argparse.Namespace) -> int:
    sys.stdout.write(f"{opening.at_boot(root)}\n")
    return 0


def _status(root: Root, _options: argparse.Namespace) -> int:
    sys.stdout.write(json.dumps(state.state(root), indent=1) + "\n")
    return 0


def _unlock(root: Root, _options: argparse.Namespace) -> int:
    """At the machine itself, with no Ansible: what is typed is not shown."""
    import getpass

    key = (
        getpass.getpass("Passphrase, recovery key or PIN: ")
        if sys.stdin.isatty()
        else sys.stdin.readline().rstrip("\n")
    )
    sys.stdout.write(json.dumps(opening.unlock(root, key), indent=1) + "\n")
    return 0


def _settle(root: Root, _options: argparse.Namespace) -> int:
    # A run that was refused, as another one works, must not start what that one has stopped.
    with contextlib.suppress(Busy), record.alone(root):
        move.settle(root)
    return 0


def _run(root: Root, _options: argparse.Namespace) -> int:
    """One of `MOVES`, as standard input says, its answer on standard output."""
    asked = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(MOVES[asked["verb"]](root, asked)))
    return 0


def _apply(root: Root, asked: dict[str, Any]) -> Any:
    wish = {**asked["wish"], "skip": tuple(asked["wish"].get("skip", ()))}
    return move.apply(root, move.Wish(**wish), asked["passphrase"]).as_dict()


def _undo(root: Root, _asked: dict[str, Any]) -> Any:
    return move.undo(root).as_dict()


def _discard(root: Root, asked: dict[str, Any]) -> Any:
    return {"plain": move.discard(root, bool(asked.get("unproven")))}


# What goes on though whoever asked for it has gone, and starts the services again whatever stops it.
MOVES: dict[str, Callable[[Root, dict[str, Any]], Any]] = {"apply": _apply, "undo": _undo, "discard": _discard}


def detached(root: Root, asked: dict[str, Any]) -> Any:
    """Have systemd run one of `MOVES`, and wait for it. What is secret in `asked` goes in by standard input.

    Raises CommandFailed with what it said.
    """
    active = store.current(root)
    code = os.path.join(active.path, "node") if active else ""
    if not os.path.isdir(os.path.join(code, "kos_node", "encryption")):
        raise NodeError("this node runs a generation that knows nothing of encryption: kai deploy first")
    python = ["/usr/bin/python3", "-I", "-B", code, "encryption"]
    line = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--pipe",
        "--wait",
        f"--unit={UNIT}-{os.getpid()}",
        "--property=KillMode=mixed",
    ]
    line += ["--property=TimeoutStopSec=15min", f"--property=ExecStopPost={' '.join([*python, 'settle'])}"]
    done = system.run([*line, *python, "run"], json.dumps(asked).encode(), check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise system.CommandFailed(
            said[-1] if said else f"it was stopped ({done.returncode}): journalctl -u '{UNIT}-*'"
        )
    return json.loads(done.stdout)


def listing(root: Root) -> dict[str, Any]:
    """How it is, and the keys. Raises CommandFailed."""
    found = state.state(root) or {"state": "none"}
    return {**found, "keys": keys.listing(root) if found["state"] != "none" else []}
