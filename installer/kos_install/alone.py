# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the engine that answers from a file and asks nobody: it tells every event, and ends with the install."""

from __future__ import annotations

import contextlib
import getpass
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.cli.exits import Exit
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError

from . import remote as reaching
from . import unattended
from .actions.runner import succeeds
from .answers import Answers
from .engine import this_machine
from .engine.client import Command, Socket
from .engine.engine import Engine
from .engine.events import LIVE
from .engine.history import History
from .engine.secrets import PASSWORD_HASH
from .engine.world import World
from .errors import InstallError, Unplannable, UsageError
from .hardware.model import Machine
from .secrets import place_of, wanted
from .storage.refusals import unattended as refusals

_ENGINE = "kos-install-engine.service"
_PATIENCE = 300.0  # seconds: of a machine that is emulated, or busy with its own medium
# Events that end an install, and the exit code of each.
_ENDS = {"refused": Exit.PREFLIGHT_FAILED, "failed": Exit.NOT_REVERTED, "done": Exit.OK}
_LEAVE = ("reboot", "power_off")
# States in which the engine takes new answers, though another client left some; and what the others mean.
_OVER_TO_US = ("answering", "planned", "failed")
_AT_WORK = "an install is at work on this machine: wait for its end, or stop it on its screen"
_TAKEN = {
    "applying": _AT_WORK,
    "verifying": _AT_WORK,
    "done": "an install has just ended on this machine: start it again, from the medium for another install",
}

Event = Mapping[str, Any]
Send = Callable[..., None]
Tell = Callable[[Event], None]


def main(path: Path | None, lines: bool, remote: tuple[str, str | None] | None = None) -> int:
    """Install by the answers in a file, or by those that were left somewhere; the exit code. Raises InstallError.

    `remote`: USER@HOST and the fingerprint of its key: it is that machine which is installed, and never this one.
    """
    where = path or unattended.source(unattended.look())
    if where is None:
        raise UsageError(f"nobody left answers here: label a partition {unattended.LABEL}, or use the screens")
    try:
        # What was left on a medium is for nobody to watch, whatever its console is.
        answers, secrets = unattended.answer(where, typed_twice if path and sys.stdin.isatty() else None)
        tell = as_json if lines else as_text
        if remote is not None:
            return elsewhere(*remote, answers, secrets, tell)
        return install(answers, secrets, tell, this_machine.world)
    except ConfigurationError as error:
        print("\n".join(str(fault) for fault in error.faults), file=sys.stderr)
        return Exit.INVALID_CONFIGURATION


def typed_twice(key: str) -> str:
    """What a person at this terminal types for a secret, unseen. Raises InstallError where nobody types any more."""
    try:
        while (first := getpass.getpass(f"{key}: ")) != getpass.getpass(f"{key}, once more: "):
            print("The two differ: type it again.", file=sys.stderr)
    except (EOFError, KeyboardInterrupt):
        raise InstallError("it was not typed: start again, or give a credential or a file") from None
    return first


def install(answers: Answers, secrets: Mapping[str, str], tell: Tell, world: Callable[[], World]) -> int:
    """Install with the engine of this machine, or where none runs with one of our own; the exit code.

    Raises OSError where the engine is lost.
    """
    client = _engine()
    if client is None:
        return _own_engine(answers, secrets, tell, world())
    with client:
        return follow(client.send, client.events(), answers, secrets, tell)


def elsewhere(host: str, fingerprint: str | None, answers: Answers, secrets: Mapping[str, str], tell: Tell) -> int:
    """Install with the engine of another machine, by the answers and secrets of this one; the exit code.

    Raises UsageError where the host is not the one that was named, OSError where the engine is lost.
    """
    with reaching.pinned(host, fingerprint) as argv, Command(argv) as client:
        return follow(client.send, client.events(), answers, secrets, tell)


def _engine() -> Socket | None:
    """A connection to the engine of this machine; one that has just been started is waited for."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return Socket()
        except OSError:
            if time.monotonic() > until or not succeeds(["systemctl", "is-active", "--quiet", _ENGINE]):
                return None
            time.sleep(1)


def _own_engine(answers: Answers, secrets: Mapping[str, str], tell: Tell, world: World) -> int:
    told: queue.Queue[dict[str, Any] | None] = queue.Queue()
    engine = Engine(world, History(told.put), lambda work: threading.Thread(target=work, name="install").start())
    engine.begin()

    def send(do: str, **fields: Any) -> None:
        engine.request({"do": do, **fields})
        if do in _LEAVE:
            told.put(None)

    return follow(send, iter(told.get, None), answers, secrets, tell)


def follow(send: Send, events: Iterable[Event], answers: Answers, secrets: Mapping[str, str], tell: Tell) -> int:
    """Answer what the engine wants to know until the install is over; the exit code.

    Raises Unplannable where the answers do not confirm what would be wiped, UsageError where the engine is at another
    install, OSError where the engine ends before.
    """
    typed, begun, resumes = as_typed(answers), False, False
    machine, state, events = Machine(), "", iter(events)
    for event in events:
        tell(event)
        name = event["event"]
        state = event["state"] if name == "state" else state
        if name == "hardware":
            machine = Machine.model_validate(event["machine"])
        elif name == "resumable":
            # A journal keeps no hash of a password: it is said again.
            resumes = event["answers"] == Answers.model_validate(typed).forgetful().model_dump(mode="json")
        elif not begun:
            # Until here: what another client did before we came.
            if name == "state" and state in _OVER_TO_US:
                begun = True
                _begin(send, typed, secrets, resumes)
            elif name == "state" and state in _TAKEN:
                raise UsageError(_TAKEN[state])
        elif name == "plan" and not resumes:
            _confirm(send, answers, machine, event)
        # While it is at work we ask for nothing: it is somebody else's request that is refused.
        elif name in _ENDS and (name != "refused" or state not in _TAKEN):
            if name == "done" and answers.after in _LEAVE:
                _leave(send, events, answers.after, tell)
            return _ENDS[name]
    raise OSError(f"the engine of the installer ended: journalctl -u {_ENGINE} says why")


def _begin(send: Send, typed: Mapping[str, Any], secrets: Mapping[str, str], resumes: bool) -> None:
    if not resumes:
        send("answer", answers=typed)
    given = dict(secrets)
    if resumes and typed["user"]["password_hash"]:
        given[PASSWORD_HASH] = typed["user"]["password_hash"]
    for name, value in given.items():
        send("secret", name=name, value=value)
    send("resume" if resumes else "plan")


def _confirm(send: Send, answers: Answers, machine: Machine, shown: Event) -> None:
    """A model's name, which a person may type, is not enough where nobody looks. Raises Unplannable."""
    if faults := refusals(answers, machine, [disk["path"] for disk in shown["wipes"]], given=True):
        raise Unplannable(*faults)
    send("confirm", digest=shown["digest"], typed=answers.confirm.wipe)


def _leave(send: Send, events: Iterable[Event], how: str, tell: Tell) -> None:
    """Ask for a restart or the power off, and stay until the engine ends with its machine, or refuses.

    Who goes at once may take the request along: an engine that has more to tell gives up a connection that it cannot
    write to, and what it has not read yet.
    """
    send(how)
    with contextlib.suppress(OSError):
        for event in events:
            tell(event)
            if event["event"] == "refused":
                return


def as_typed(answers: Answers) -> dict[str, Any]:
    """The answers for an engine that cannot look where we have found their secrets: they are typed instead."""
    data = answers.model_dump(mode="json")
    for key, _secret in wanted(answers).values():
        _typed(data, key)
    # A key that nobody writes down opens the disk for nobody, and looks as if it did.
    data["encryption"]["recovery_key"] = False
    return data


def _typed(data: Any, key: str) -> None:
    *way, last = place_of(key)
    for step in way:
        data = data[step]
    data[last] = {"credential": None, "file": None, "prompt": True}


def as_json(event: Event) -> None:
    """Print an event as one line. What is for a person's eyes is left out: nobody is here, and logs are kept."""
    if event["event"] not in LIVE:
        print(json.dumps(_discreet(event), ensure_ascii=False), flush=True)


def _discreet(event: Event) -> Event:
    """The event without the hash of a password, which somebody could try passwords on."""
    user = event.get("answers", {}).get("user", {})
    if not isinstance(user, Mapping) or not user.get("password_hash"):
        return event
    return {**event, "answers": {**event["answers"], "user": {**user, "password_hash": "***"}}}


def as_text(event: Event) -> None:
    """Print what a person wants to know of an event."""
    line = _line(event)
    if line:
        print(line, flush=True)


def _line(event: Event) -> str:
    name = event["event"]
    if name == "action":
        return f"[{event['number']}/{event['total']}] {event['id']}: {event['state']}"
    if name == "log":
        # Not the commands: the systemd journal of the engine has them.
        return "" if event["text"].startswith("$ ") else str(event["text"])
    if name == "notice":
        return "\n".join(event["sentences"])
    if name == "refused":
        return "\n".join(event["faults"])
    if name == "failed":
        return f"FAILED: {event['sentence']}"
    if name == "done":
        lines = [f"Installed: {event['hostname']}", *event["addresses"], f"SSH host key: {event['fingerprint']}"]
        return "\n".join([*lines, *event["next"]])
    if name == "plan":
        return str(event["before_after"])
    return ""
