# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages and questions as data: each client draws them its own way, and all of them get the same answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..hardware.model import Machine
from .draft import Draft, reader, writer

Kind = Literal["text", "secret", "choice", "pick", "switch", "many", "lines"]


@dataclass(frozen=True)
class Option:
    """One of the things to choose from; `refused` says why it cannot be chosen."""

    value: str
    label: str
    refused: str = ""


def _fine(_value: Any) -> str:
    return ""


def _always(_draft: Draft) -> bool:
    return True


@dataclass(frozen=True)
class Question:
    """One question. `check` says in one sentence what is wrong with a value, or nothing.

    text, secret, lines: a text. choice, pick: the value of an option (pick: of a long list). switch: yes or no.
    many: a list of values of options. The value of a secret is never shown.
    """

    name: str
    label: str
    kind: Kind
    read: Callable[[Draft], Any]
    write: Callable[[Draft, Any], None]
    options: Sequence[Option] = ()
    hint: str = ""
    check: Callable[[Any], str] = _fine
    shown: Callable[[Draft], bool] = _always


def ask(path: str, label: str, kind: Kind, default: Any, **more: Any) -> Question:
    """A question whose answer is at a path of the answers."""
    return Question(path, label, kind, reader(path, default), writer(path, default), **more)


@dataclass
class Session:
    """What the engine has told of the machine and the medium, and what was answered so far."""

    draft: Draft = field(default_factory=Draft)
    machine: Machine = field(default_factory=Machine)
    addresses: list[str] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """One page. `lead` says what it is about; `aside` says more about what is chosen, anew after each change.

    `faults` is what is wrong with its answers together; `slow` marks an aside that takes longer than a key press.
    """

    name: str
    title: str
    lead: str
    help: str
    questions: Sequence[Question]
    aside: Callable[[Session], str] = lambda _session: ""
    faults: Callable[[Draft], str] = lambda _draft: ""
    slow: bool = False


def wrong(page: Page, draft: Draft) -> list[str]:
    """What keeps a person from going on, one sentence each; empty where nothing does."""
    asked = [question for question in page.questions if question.shown(draft)]
    found = [(question, question.check(question.read(draft))) for question in asked]
    said = [f"{question.label}: {fault}" for question, fault in found if fault]
    together = page.faults(draft)
    return [*said, *([together] if together else [])]
