# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's verbs about its own systems: ``system stage``, ``publish``, ``back`` and what systemd calls."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from .. import system
from ..files import Root
from . import enrol, kernels, mirror, reset, system_update, trial


def add(verbs: Any) -> None:
    """Add the verb ``system`` to the node's own."""
    parser = verbs.add_parser("system", help="updates of the whole system, and the way back from them")
    known = parser.add_subparsers(required=True)
    stage = known.add_parser("stage", help="make a candidate with all packages up to date")
    stage.add_argument("--fresh", action="store_true", help="make one even where no package is newer")
    stage.set_defaults(run=_stage)
    for name, run in (
        ("publish", _publish), ("recheck", _recheck), ("drop", _dropped),
        ("status", _status), ("settle", _settle), ("decided", _decided),
        ("bless", _bless), ("gate", _gate), ("lost", _lost), ("enrol", _enrol),
        ("mirror", _mirror),
    ):  # fmt: skip
        known.add_parser(name).set_defaults(run=run)
    back = known.add_parser("back", help="choose the system before, or another, for the next start")
    back.add_argument("number", type=int, nargs="?")
    back.set_defaults(run=_back)
    for name in ("pin", "unpin"):
        one = known.add_parser(name)
        one.add_argument("number", type=int)
        one.set_defaults(run=_pin, keep=name == "pin")
    for name, verb in (("renew", kernels.renew), ("forget", kernels.forget)):
        one = known.add_parser(name, help="called by the kernel's packages")
        one.add_argument("version")
        one.set_defaults(run=_of_kernel, verb=verb)
    fresh = known.add_parser("reset", help="make this machine as the installer left it")
    fresh.add_argument("--confirm", default="", help="this node's host name")
    fresh.add_argument("--data", action="store_true", help="empty /var and /home too, at the next start")
    fresh.set_defaults(run=_reset)


def _print(data: Any) -> int:
    sys.stdout.write(json.dumps(data, indent=1) + "\n")
    return 0


def _stage(root: Root, options: argparse.Namespace) -> int:
    return _print(system_update.stage(root, options.fresh))


def _publish(root: Root, _options: argparse.Namespace) -> int:
    return _print(system_update.publish(root))


def _recheck(root: Root, _options: argparse.Namespace) -> int:
    return _print(system_update.recheck(root))


def _dropped(root: Root, _options: argparse.Namespace) -> int:
    return _print(system_update.drop(root))


def _status(root: Root, _options: argparse.Namespace) -> int:
    return _print(system_update.status(root))


def _settle(root: Root, _options: argparse.Namespace) -> int:
    return _print(system_update.settle(root))


def _decided(root: Root, _options: argparse.Namespace) -> int:
    """Whether it is clear which system this machine runs from now on: 1 while one is on trial or waits for its turn."""
    answer = system_update.status(root)
    return int(answer is not None and (answer["waiting"] is not None or not answer["proved"]))


def _bless(root: Root, _options: argparse.Namespace) -> int:
    return _print(system_update.bless(root))


def _gate(root: Root, _options: argparse.Namespace) -> int:
    deadline = float(os.environ.get("KOS_GATE_DEADLINE") or trial.DEADLINE)
    grace = float(os.environ.get("KOS_GATE_GRACE") or trial.GRACE)
    return 0 if trial.judge(root, deadline, grace) else 1


def _lost(root: Root, _options: argparse.Namespace) -> int:
    if trial.lost(root):
        os.sync()
        system.run(["systemctl", "reboot", "--force"])
    return 0


def _enrol(root: Root, _options: argparse.Namespace) -> int:
    return _print(enrol.enrol(root))


def _mirror(root: Root, _options: argparse.Namespace) -> int:
    try:
        system_update.level(root)
    finally:
        # A boot entry that cannot be written must not keep the data on one disk.
        said = mirror.mend(root)
    return _print(said)


def _back(root: Root, options: argparse.Namespace) -> int:
    return _print(system_update.back(root, options.number))


def _pin(root: Root, options: argparse.Namespace) -> int:
    return _print(system_update.pin(root, options.number, options.keep))


def _of_kernel(root: Root, options: argparse.Namespace) -> int:
    return _print(options.verb(root, options.version))


def _reset(root: Root, options: argparse.Namespace) -> int:
    return _print(reset.reset(root, options.confirm, options.data))
