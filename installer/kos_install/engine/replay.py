# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A world without side effects: a described machine, and the progress of an install as it was recorded.

A recording has one JSON object a line: `kind` of the action, `after` seconds, and what then happens: `done`, `total`
and `unit` of its progress; `log`; `recovery_key`; `fail`, the sentence of a failure that the next try does not have.
A line of the kind `interrupted` says that an install was begun before: `answers` are its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils.faults import Place
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse

from ..actions.context import Context
from ..answers import Answers
from ..errors import ApplyFailed, UsageError
from ..hardware.model import Machine
from ..storage.picture import picture
from ..storage.plan import plan
from .outcome import FINGERPRINT, outcome
from .world import Found, World

_INTERRUPTED = "interrupted"
# The state of a medium's verification where there is no medium: screens show by it that nothing is real.
REHEARSED = "rehearsed"


def recording(path: Path | None) -> list[dict[str, Any]]:
    """What was recorded; nothing where there is no file. Raises UsageError."""
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    return [_row(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def _row(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not _recorded(row):
        raise UsageError(
            f"{place}: this is no recorded progress, which has one JSON object a line with the kind of an action:"
            " without a recording say --replay /dev/null"
        )
    return row


def _recorded(row: dict[str, Any]) -> bool:
    texts = all(isinstance(row.get(key, ""), str) for key in ("log", "recovery_key", "fail", "unit"))
    counts = "total" not in row or all(isinstance(row.get(key), int) for key in ("done", "total"))
    begun = row.get("kind") != _INTERRUPTED or isinstance(row.get("answers"), dict)
    return (
        isinstance(row.get("kind"), str) and texts and counts and begun and isinstance(row.get("after", 0), int | float)
    )


def world(machine: Machine, recorded: list[dict[str, Any]], interrupted: Answers | None = None) -> World:
    """This machine, with installs as recorded; `interrupted`: the answers of one that was begun on it."""
    rows = [row for row in recorded if row["kind"] != _INTERRUPTED]
    begun_before = [row["answers"] for row in recorded if row["kind"] == _INTERRUPTED]
    if begun_before and not interrupted:
        interrupted = parse(Answers, begun_before[0], lambda _path: Place("recording"))
    found: list[Found] = []
    if interrupted:
        begun = plan(interrupted, machine)
        path = begun.actions[0].disk.path  # type: ignore[union-attr]
        found.append(Found(path, 4, len(begun.actions), interrupted, begun, found.clear))
    return World(
        detect=lambda: machine,
        found=lambda _machine: found[0] if found else None,
        plan=plan,
        picture=picture,
        apply=lambda context: _play(context, rows),
        outcome=_outcome,
        medium=lambda: {"record": {}, "verification": {"state": REHEARSED, "said": []}},
        door=lambda: {"addresses": [], "fingerprint": "", "password": ""},
    )


def _play(context: Context, rows: list[dict[str, Any]]) -> None:
    for action in context.plan.actions:
        context.action(action.id, "started")
        _act(context, action.id, [row for row in rows if row["kind"] == action.kind], rows)
        context.action(action.id, "done")


def _act(context: Context, name: str, mine: Iterable[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    for row in mine:
        time.sleep(row.get("after", 0))
        if "total" in row:
            context.progress(name, row["done"], row["total"], row.get("unit", "steps"))
        if "log" in row:
            context.log(row["log"])
        if "recovery_key" in row:
            context.show_recovery_key(row["recovery_key"])
        if "fail" in row:
            rows.remove(row)
            raise ApplyFailed(row["fail"])


def _outcome(context: Context) -> dict[str, Any]:
    context.made[FINGERPRINT] = "SHA256:" + "kOS" * 14 + "x"
    return outcome(context)
