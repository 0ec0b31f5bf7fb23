# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the engine that answers from a file and asks nobody: it tells every event, and ends with the install."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.kind.kos.cli.exits import Exit

from .answers import Answers
from .engine.client import Client
from .engine.engine import Engine
from .engine.history import History
from .engine.world import World
from .secrets import wanted

Event = Mapping[str, Any]
Send = Callable[..., None]
Tell = Callable[[Event], None]


def install(answers: Answers, secrets: Mapping[str, str], tell: Tell, world: Callable[[], World]) -> int:
    """Install with the engine of this machine, or where none runs with one of our own; the exit code.

    Raises OSError where the engine is lost.
    """
    try:
        client = Client()
    except OSError:
        return _own_engine(answers, secrets, tell, world())
    with client:
        return follow(client.send, client.events(), answers, secrets, tell)


def _own_engine(answers: Answers, secrets: Mapping[str, str], tell: Tell, world: World) -> int:
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    engine = Engine(world, History(told.put), lambda work: threading.Thread(target=work, name="install").start())
    engine.begin()

    def send(do: str, **fields: Any) -> None:
        engine.request({"do": do, **fields})

    def events() -> Iterator[dict[str, Any]]:
        while True:
            yield told.get()

    return follow(send, events(), answers, secrets, tell)


def follow(send: Send, events: Iterable[Event], answers: Answers, secrets: Mapping[str, str], tell: Tell) -> int:
    """Answer what the engine wants to know until the install is over; the exit code."""
    typed, begun = as_typed(answers), False
    interrupted: Any = None
    for event in events:
        tell(event)
        name = event["event"]
        if name == "resumable":
            interrupted = event["answers"]
        elif name == "state" and event["state"] == "answering" and not begun:
            begun = True
            _begin(send, typed, secrets, interrupted)
        elif name == "plan" and begun and interrupted != typed:
            # The engine believes no file: what may be wiped is said again, as a person would type it.
            send("confirm", digest=event["digest"], typed=answers.confirm.wipe)
        elif name == "refused" and begun:
            return Exit.PREFLIGHT_FAILED
        elif name == "failed":
            return Exit.NOT_REVERTED
        elif name == "done":
            _end(send, answers)
            return Exit.OK
    raise OSError("the engine of the installer ended: journalctl -u kos-engine says why")


def _begin(send: Send, typed: Mapping[str, Any], secrets: Mapping[str, str], interrupted: Any) -> None:
    resumes = interrupted == typed
    if interrupted is not None and not resumes:
        send("abandon")
    if not resumes:
        send("answer", answers=typed)
    for name, value in secrets.items():
        send("secret", name=name, value=value)
    send("resume" if resumes else "plan")


def as_typed(answers: Answers) -> dict[str, Any]:
    """The answers for an engine that cannot look where we have found their secrets: they are typed instead."""
    data = answers.model_dump(mode="json")
    for key, _secret in wanted(answers).values():
        _typed(data, key)
    return data


def _typed(data: Any, key: str) -> None:
    *way, last = key.replace("[", ".").replace("]", "").split(".")
    for step in way:
        data = data[int(step)] if step.isdecimal() else data[step]
    data[last] = {"credential": None, "file": None, "prompt": True}


def _end(send: Send, answers: Answers) -> None:
    if answers.after != "wait":
        send(answers.after)


def as_json(event: Event) -> None:
    """Print an event as one line. A recovery key is for a person's eyes: nobody is here, so it is left out."""
    if event["event"] != "recovery_key":
        print(json.dumps(event, ensure_ascii=False), flush=True)


def as_text(event: Event) -> None:
    """Print what a person wants to know of an event."""
    line = _line(event)
    if line:
        print(line, flush=True)


def _line(event: Event) -> str:
    name = event["event"]
    if name == "action":
        return f"[{event['number']}/{event['total']}] {event['id']}: {event['state']}"
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
