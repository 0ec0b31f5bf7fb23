# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person does to the power and the clock of a node that is up."""

from __future__ import annotations

import re
import time

from . import lock, node, ssh, state
from .command import attempt
from .errors import LabError, UsageError
from .identity import Lab
from .state import Node

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_OFFSET = re.compile(r"([+-])(\d{1,6})([smhd])")
_BOOT = "cat /proc/sys/kernel/random/boot_id"


def reboot(lab: Lab, name: str, hard: bool = False) -> str:
    """Restart a node, in order or `hard` (as the button does), and wait for it; gives systemd's word for its state.

    Raises LabError where it does not come back.
    """
    with lock.held(lab):
        target = _running(lab, name)
        before = _said(lab, target, _BOOT)
        if hard:
            node.DRIVERS[target.driver].reset(lab, target)
        elif not node.DRIVERS[target.driver].shell(lab, target, "systemctl --no-block reboot", ""):
            raise LabError(f"node {name} does not take the order to reboot; --hard does not ask it")
        deadline = time.monotonic() + node.boot_seconds(target)
        while _said(lab, target, _BOOT) in ("", before):
            if time.monotonic() > deadline or not node.running(lab, name):
                raise LabError(f"node {name} did not come back:\n{node.last_words(lab, name)}")
            time.sleep(0.2)
        return node.wait(lab, target)


def move_clock(lab: Lab, name: str, text: str) -> str:
    """Move the clock of a node, until it is set or rebooted, by `+3d`, `-90s`, …; gives the time it has then.

    Raises UsageError where the clock is this machine's own.
    """
    seconds = offset(text)
    with lock.held(lab):
        target = _running(lab, name)
        if target.driver != "vm":
            raise UsageError(f"node {name} shares this machine's clock; one made with --driver vm has its own")
        said = _said(lab, target, f'date --utc --iso-8601=seconds --set="@$(($(date +%s) + {seconds}))"')
    if not said:
        raise LabError(f"node {name} did not set its clock")
    return said


def offset(text: str) -> int:
    """Seconds in `+3d`, `-90s`, `+1h`, `-5m`. Raises UsageError."""
    found = _OFFSET.fullmatch(text)
    if not found:
        raise UsageError(f"'{text}': write a sign, a number and s, m, h or d, as in +3d")
    return int(found[1] + found[2]) * _SECONDS[found[3]]


def _running(lab: Lab, name: str) -> Node:
    target = state.require(lab).node(name)
    if not node.running(lab, name):
        raise UsageError(f"node {name} is off; `kai lab up {name}` switches it on")
    return target


def _said(lab: Lab, target: Node, line: str) -> str:
    """The output of a line on the node; empty where it does not answer."""
    limit = "10" if target.driver == "nspawn" else "30"
    return attempt(["timeout", limit, *ssh.argv(lab, target, [line], "-q", "-o", "ConnectTimeout=10")]).stdout.strip()
