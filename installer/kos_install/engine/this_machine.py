# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The world of a medium: this machine, its disks, its journal, its firmware."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import medium, ready, secrets
from ..answers import Answers
from ..errors import ApplyFailed, InstallError, Unplannable
from ..hardware import detect
from ..hardware.addresses import addresses
from ..hardware.model import Machine
from ..preflight import circumstances
from ..storage.actions import Plan, Table
from ..storage.picture import picture
from ..storage.plan import plan
from . import apply, door
from .journal import Journal
from .outcome import outcome
from .world import Found, World

# Answers whose secrets are files lie here, if anywhere: nobody has given a folder.
_BESIDE = Path("/run/kos")


def world() -> World:
    """This machine, with everything that can be done to it."""
    return World(
        detect=detect.detect,
        found=_found,
        plan=_plan,
        picture=picture,
        secrets=_secrets,
        apply=apply.install,
        outcome=outcome,
        addresses=addresses,
        medium=_medium,
        command=command,
        door=lambda: door.open_door(addresses()),
    )


def _plan(answers: Answers, machine: Machine) -> Plan:
    made = plan(answers, machine, circumstances(answers, machine, attended=True))
    if faults := ready.shared_esps(made):
        raise Unplannable(*faults)
    return made


def _secrets(answers: Answers, typed: Mapping[str, str]) -> dict[str, str]:
    """Those that were typed, and those that the answers fetch from elsewhere. Raises Unplannable."""
    by_key = {key: typed.get(name, "") for name, (key, _secret) in secrets.wanted(answers).items()}
    return secrets.resolve(answers, _BESIDE, lambda key: by_key[key])


def _found(_machine: Machine) -> Found | None:
    """The install that was begun here and not finished; where several were, the first, which names the others.

    Raises ApplyFailed where there is none but a disk that cannot be read.
    """
    begun, faults = apply.begun()
    if not begun:
        if faults:
            raise ApplyFailed("; ".join(faults))
        return None
    journal, *others = begun
    done = sum(journal.done(action) for action in journal.plan.actions)
    total = len(journal.plan.actions)
    notes = (*(f"an install onto {_disk(other)} was begun, too: it is offered next" for other in others), *faults)
    return Found(_disk(journal), done, total, journal.answers, journal.plan, lambda: apply.abandon(journal), notes)


def _disk(journal: Journal) -> str:
    return next((one.disk.path for one in journal.plan.actions if isinstance(one, Table)), str(journal.device))


def _medium() -> dict[str, Any]:
    return {"record": medium.record(), "verification": dict(vars(medium.progress()))}


def command(name: str) -> None:
    """What a person does to the machine itself. Raises InstallError."""
    if name == "verify_medium":
        medium.STATE.unlink(missing_ok=True)
    lines = {
        "verify_medium": ["systemctl", "--no-block", "restart", medium.VERIFIER],
        "reboot": ["systemctl", "--no-block", "reboot"],
        "power_off": ["systemctl", "--no-block", "poweroff"],
    }
    try:
        subprocess.run(lines[name], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InstallError("there is no systemd here: do it by hand") from error
    except subprocess.CalledProcessError as error:
        raise InstallError(f"systemd refused: {(error.stderr or '').strip()}") from error
