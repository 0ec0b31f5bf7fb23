# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages and questions as data: each client draws them its own way, and all of them get the same answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..engine.history import LOGGED
from ..engine.replay import REHEARSED
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
    many: a list of values of options. The value of a secret is never shown. `found` looks for more options when
    somebody asks for them; `anew`: other questions change with the answer.
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
    found: Callable[[], Sequence[Option]] | None = None
    anew: bool = False


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
    state: str = "detecting"
    plan: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    resumable: dict[str, Any] = field(default_factory=dict)
    actions: dict[str, dict[str, Any]] = field(default_factory=dict)
    progress: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOGGED))
    failed: dict[str, Any] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)
    door: dict[str, Any] = field(default_factory=dict, repr=False)
    recovery_key: str = field(default="", repr=False)
    # Whether somebody has answered here: what another screen drafts is then not taken over.
    touched: bool = False

    @property
    def rehearsed(self) -> bool:
        """Whether this is a rehearsal, which installs nothing."""
        return self.verification.get("state") == REHEARSED

    def answers(self) -> dict[str, Any]:
        """Those of the install that goes on: of one that is resumed, its own."""
        return dict(self.resumable.get("answers") or self.draft.answers)

    def hear(self, event: dict[str, Any]) -> None:
        """Take in what the engine tells; a word that is not known here is left alone."""
        fields = {key: value for key, value in event.items() if key not in {"event", "seq"}}
        if heard := getattr(self, f"_hear_{event['event']}", None):
            heard(fields)

    def _hear_state(self, fields: dict[str, Any]) -> None:
        if fields["state"] == "applying" and self.state not in {"applying", "verifying"}:
            self.failed = {}
        self.state = fields["state"]

    def _hear_medium(self, fields: dict[str, Any]) -> None:
        self.record, self.verification = fields["record"], fields["verification"]

    def _hear_hardware(self, fields: dict[str, Any]) -> None:
        self.machine, self.addresses = Machine.model_validate(fields["machine"]), fields["addresses"]

    def _hear_draft(self, fields: dict[str, Any]) -> None:
        if not self.touched:
            self.draft.answers = fields["answers"]

    def _hear_resumable(self, fields: dict[str, Any]) -> None:
        self.resumable = fields

    def _hear_notice(self, fields: dict[str, Any]) -> None:
        self.notices = fields["sentences"]

    def _hear_refused(self, fields: dict[str, Any]) -> None:
        self.faults = fields["faults"]

    def _hear_plan(self, fields: dict[str, Any]) -> None:
        self.plan, self.faults = fields, []
        self.actions, self.progress = {}, {}

    def _hear_action(self, fields: dict[str, Any]) -> None:
        self.actions[fields["id"]] = fields

    def _hear_progress(self, fields: dict[str, Any]) -> None:
        self.progress[fields["id"]] = fields

    def _hear_log(self, fields: dict[str, Any]) -> None:
        self.log.append(fields["text"])

    def _hear_failed(self, fields: dict[str, Any]) -> None:
        self.failed = fields

    def _hear_done(self, fields: dict[str, Any]) -> None:
        self.done = fields

    def _hear_door(self, fields: dict[str, Any]) -> None:
        self.door = fields

    def _hear_recovery_key(self, fields: dict[str, Any]) -> None:
        self.recovery_key = fields["key"]


@dataclass(frozen=True)
class Page:
    """One page. `lead` says what it is about; `aside` says more about what is chosen, anew after each change.

    `faults` is what is wrong with its answers together, which `field` mends; `slow` marks an aside that takes longer
    than a key press, `wide` one that is a picture of 79 columns.
    """

    name: str
    title: str
    lead: str
    help: str
    questions: Sequence[Question]
    aside: Callable[[Session], str] = lambda _session: ""
    faults: Callable[[Draft], str] = lambda _draft: ""
    field: str = ""
    slow: bool = False
    wide: bool = False


def wrong(page: Page, draft: Draft) -> list[str]:
    """What keeps a person from going on, one sentence each; empty where nothing does."""
    asked = [question for question in page.questions if question.shown(draft)]
    found = [(question, question.check(question.read(draft))) for question in asked]
    said = [f"{question.label}: {fault}" for question, fault in found if fault]
    together = page.faults(draft)
    return [*said, *([together] if together else [])]


def astray(page: Page, draft: Draft) -> str:
    """The name of the first question whose own answer is wrong; else of the one that mends all of them together."""
    asked = (question for question in page.questions if question.shown(draft))
    return next((question.name for question in asked if question.check(question.read(draft))), page.field)
