# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kos-install --dry-run`: what an install would do, on this machine or a described one. Nothing is touched."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.cli.exits import Exit
from ansible_collections.kind.kos.plugins.plugin_utils.documents import KeyPath
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError, Fault, Place, shown_path
from ansible_collections.kind.kos.plugins.plugin_utils.hardware import memory

from . import answers as answered
from . import intended, medium, secrets
from .answers import Answers
from .errors import InstallError, Unplannable
from .hardware import describe, detect
from .hardware.model import Machine
from .preflight import circumstances
from .storage.actions import Plan
from .storage.picture import picture
from .storage.plan import Circumstances, plan, wiped
from .storage.refusals import unattended
from .storage.words import said
from .unattended import of_example


def dry_run(answers: Path, hardware: Path | None, as_json: bool, alone: bool = False) -> int:
    """Print the plan, or why there is none. The exit code is the one of the install itself.

    `alone`: of one that nobody watches; answers that do not suffice for it are refused.
    """
    try:
        asked, place = answered.placed(answers)
        machine = describe.load(hardware) if hardware else detect.detect()
        known = _known(asked, machine, answers, place)
        made = plan(asked, machine, known)
    except ConfigurationError as error:
        _refuse([fault.as_dict() for fault in error.faults], [str(fault) for fault in error.faults], as_json)
        return Exit.INVALID_CONFIGURATION
    except InstallError as error:
        faults = error.faults if isinstance(error, Unplannable) else (str(error),)
        _refuse([{"message": fault} for fault in faults], list(faults), as_json)
        return error.exit
    lacking = _alone(asked, machine, made)
    if alone and lacking:
        _refuse([{"message": fault} for fault in lacking], lacking, as_json)
        return Exit.PREFLIGHT_FAILED
    print(json.dumps(_data(asked, machine, made), indent=1) if as_json else "\n".join(_text(asked, machine, made)))
    return Exit.OK


def _known(asked: Answers, machine: Machine, path: Path, place: Callable[[KeyPath], Place]) -> Circumstances:
    """The circumstances, with every secret that is a file looked at, too. Raises ConfigurationError."""
    faults = [Fault(said, key=key) for key, said in secrets.faults_of_files(asked, path.parent).items()]
    known = Circumstances()
    try:
        known = circumstances(asked, machine, attended=True, place=shown_path(path))
    except ConfigurationError as error:
        faults += error.faults
    if faults:
        raise ConfigurationError(
            fault if fault.place and fault.place.line else replace(fault, place=place(secrets.place_of(fault.key)))
            for fault in faults
        )
    return known


def _refuse(faults: list[dict[str, Any]], lines: list[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"ok": False, "faults": faults}, indent=1))
    else:
        print("\n".join(lines), file=sys.stderr)


def _alone(asked: Answers, machine: Machine, made: Plan) -> list[str]:
    """What is missing for an install that nobody watches."""
    return [*of_example(asked), *unattended(asked, machine, wiped(made))]


def _profile(asked: Answers) -> str | None:
    return asked.profile or medium.record().get("profile")


def _data(asked: Answers, machine: Machine, made: Plan) -> dict[str, Any]:
    return {
        "ok": True,
        "machine": machine.model_dump(mode="json"),
        "node": intended.node(asked, _profile(asked)),
        "plan": made.model_dump(mode="json"),
        "digest": made.digest(),
        "before_after": picture(machine, made),
        "wipes": wiped(made),
        "unattended": _alone(asked, machine, made),
    }


def _text(asked: Answers, machine: Machine, made: Plan) -> Iterator[str]:
    yield from summary(machine)
    yield "\nWhat it would be:"
    yield from intended.lines(asked, _profile(asked))
    yield ""
    yield picture(machine, made)
    yield "What would be done:"
    yield from (f"  {number:>2}. {said(action)}" for number, action in enumerate(made.actions, 1))
    for title, lines in (
        ("Think of this:", made.warnings),
        ("Nobody could leave it alone with these answers:", _alone(asked, machine, made)),
    ):
        if lines:
            yield f"\n{title}"
            yield from (textwrap.fill(line, 79, initial_indent="  - ", subsequent_indent="    ") for line in lines)
    yield "\nNothing was changed: this was a dry run."


def summary(machine: Machine) -> Iterator[str]:
    """The machine in a few lines."""
    boot = {"on": "Secure Boot on", "setup": "Secure Boot in setup mode", "off": "no Secure Boot"}[machine.secure_boot]
    chips = [*(["TPM 2"] if machine.tpm2 else []), *(["FIDO2 key"] if machine.fido2 else [])]
    cards = [f"{card.name}{' (Wi-Fi)' if card.wireless else ''}" for card in machine.nics]
    yield f"Machine   {machine.name or 'unnamed'}, {machine.architecture}, {machine.firmware.upper()}, {boot}"
    yield f"          {machine.cpu} core{'s' * (machine.cpu != 1)}, {memory(machine.memory_mb)} of memory"
    yield f"Also has  {', '.join([*chips, *(f'GPU of {maker}' for maker in machine.gpu)]) or 'nothing of note'}"
    yield f"Network   {', '.join(cards) or 'no card that Linux knows'}"
