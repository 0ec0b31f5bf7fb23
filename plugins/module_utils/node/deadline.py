# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's own deadline: what is not committed by then goes back, whatever became of the controller."""

from __future__ import annotations

import os

from . import files, store, system
from .files import Root
from .journal import Journal, uptime

_UNIT = "kos-deadline"


def arm(root: Root, journal: Journal, generation: store.Generation, seconds: int) -> None:
    """Make systemd take the transaction back `seconds` from now unless it is armed anew or committed."""
    if not root.booted:
        return
    files.write_json(root.state("deadline"), uptime() + seconds - 1)
    # A new name each time, started before the old one ends: there is no moment without a deadline, and one
    # that has fired meanwhile (it waits for the lock this call holds) is not in the way.
    name = f"{_UNIT}-{journal.begin['token']}-{len(journal.records)}"
    argv = ["systemd-run", "--quiet", "--collect", f"--unit={name}", f"--on-active={seconds}"]
    argv += ["--timer-property=AccuracySec=1s", "--description=kOS takes an uncommitted generation back"]
    # A revert that fails (dpkg's lock, no space) is tried again.
    argv += ["--property=Restart=on-failure", "--property=RestartSec=20", "--property=StartLimitIntervalSec=0"]
    argv += ["/usr/bin/python3", "-I", "-B", os.path.join(generation.path, "node"), "revert", "--overdue"]
    system.run([*argv, "--token", journal.begin["token"]])
    _stop_timers(except_for=name)
    journal.write("armed", unit=name)


def _stop_timers(except_for: str = "") -> None:
    listed = system.run(["systemctl", "list-units", "--plain", "--no-legend", "--all", f"{_UNIT}-*.timer"])
    names = [line.split()[0] for line in listed.stdout.decode().splitlines() if line.strip()]
    system.systemctl("stop", [name for name in names if name != f"{except_for}.timer"])


def disarm(root: Root) -> None:
    """Forget the deadline: the transaction has ended."""
    if root.booted:
        _stop_timers()
        files.remove(root.state("deadline"))


def forget(root: Root) -> None:
    """Disarm what a run that was killed at its very end left armed."""
    if os.path.exists(root.state("deadline")):
        disarm(root)


def overdue(root: Root) -> bool:
    """Whether the deadline that was armed last has passed."""
    return uptime() >= float(files.read_json(root.state("deadline"), 0))
