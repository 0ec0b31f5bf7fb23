# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine: what may follow on what. It knows no socket and no screen; its clients are equal."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from threading import Event, RLock
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError, Place
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse

from .. import medium
from ..actions.context import Context
from ..answers import Answers
from ..errors import ApplyFailed, InstallError, UsageError
from ..hardware.model import Machine
from ..storage.actions import Plan
from . import confirmation, secrets
from .events import State
from .history import History
from .world import Found, World

# Which requests each state allows; whatever a screen does, nothing is written to a disk but from `planned` on.
_ALWAYS = {"draft", "detect", "recovery_key", "noted", "verify_medium", "door", "reboot", "power_off"}
_ALLOWED: dict[State, set[str]] = {
    "detecting": set(),
    "answering": {"answer", "secret", "plan", "resume", "abandon"},
    "planned": {"answer", "secret", "plan", "confirm", "abandon"},
    "applying": {"stop"},
    "verifying": {"stop"},
    "done": set(),
    "failed": {"answer", "secret", "retry", "resume", "abandon"},
}
_BUSY: tuple[State, ...] = ("applying", "verifying")
_BROKEN = "this medium is not as it was made: nothing is installed from it; make it again, or take another stick"
_NOT_WHILE_BUSY = {"detect", "draft", "reboot", "power_off"}


class Engine:
    """One install. `start` runs its work beside the caller; requests come one at a time, events from anywhere."""

    def __init__(self, world: World, history: History, start: Callable[[Callable[[], None]], None]) -> None:
        self.state: State = "detecting"
        self._world, self._history, self._start = world, history, start
        self._machine = Machine()
        self._answers: Answers | None = None
        self._plan: Plan | None = None
        self._found: Found | None = None
        self._secrets: dict[str, str] = {}
        self._recovery_key = ""
        self._stopped = Event()
        self._lock = RLock()

    def begin(self) -> None:
        """Look at the machine, and for an install that was interrupted."""
        self._enter("detecting")
        self._looked([self._look, self._find])
        self._enter("answering")

    def _looked(self, looks: list[Callable[[], None]]) -> None:
        """What cannot be looked at keeps nobody from the rest."""
        faults = []
        for look in looks:
            try:
                look()
            except Exception as error:  # a screen that says what is wrong is worth more than an engine that is gone
                self._tell("log", text=traceback.format_exc())
                faults.append(f"this machine could not be looked at in full: {error}")
        if faults:
            self._tell("notice", sentences=faults)

    def _find(self) -> None:
        self._found = self._world.found(self._machine)
        if self._found:
            found = self._found
            if found.notes:
                self._tell("notice", sentences=list(found.notes))
            self._tell(
                "resumable",
                disk=found.disk,
                done=found.done,
                total=found.total,
                answers=found.answers.model_dump(mode="json"),
            )

    def request(self, asked: Mapping[str, Any]) -> None:
        """Do what a client asks; what cannot be done is told as `refused`, and changes nothing."""
        with self._lock:
            self._request(asked)

    def stop(self) -> None:
        """Let the work end after what it is at; the journal knows how far it came."""
        self._stopped.set()

    def _request(self, asked: Mapping[str, Any]) -> None:
        try:
            verb = asked.get("do")
            allowed = _ALLOWED[self.state] | _ALWAYS - (_NOT_WHILE_BUSY if self.state in _BUSY else set())
            if not isinstance(verb, str) or verb not in allowed:
                raise UsageError(f"{verb} is not possible while the installer is {self.state}")
            getattr(self, f"_do_{verb}")(dict(asked))
        except ConfigurationError as error:
            self._tell("refused", faults=[str(fault) for fault in error.faults])
        except InstallError as error:
            self._tell("refused", faults=list(getattr(error, "faults", [str(error)])))
        except (KeyError, TypeError, ValueError) as error:
            self._tell("refused", faults=[f"a request that cannot be read: {type(error).__name__} {error}"])
        except OSError as error:  # a disk, the network: whoever asked must hear of it, and may ask again
            self._tell("refused", faults=[f"the machine refused: {error}"])

    def look_at_medium(self) -> None:
        """Tell how far the medium is proved, where that is news."""
        seen = self._world.medium()
        if seen and self._history.newest("medium") != seen:
            self._tell("medium", **seen)

    # What a client may ask. --------------------------------------------------------------------------------------

    def _do_draft(self, asked: dict[str, Any]) -> None:
        if not isinstance(asked["answers"], dict):
            raise TypeError("answers")
        self._tell("draft", answers=asked["answers"])

    def _do_answer(self, asked: dict[str, Any]) -> None:
        if self.state == "failed":
            self._look()
        self._plan = self._answers = None
        self._enter("answering")
        self._answers = parse(Answers, asked["answers"], lambda _path: Place("answers"))
        self._tell("draft", answers=asked["answers"])

    def _do_secret(self, asked: dict[str, Any]) -> None:
        name = secrets.name(asked["name"])
        self._secrets[name] = secrets.value(name, asked["value"])

    def _do_plan(self, _asked: dict[str, Any]) -> None:
        if self._answers is None:
            raise UsageError("nothing was answered yet")
        self._plan = self._world.plan(self._answers, self._machine)
        self._show_plan()
        self._enter("planned")

    def _do_confirm(self, asked: dict[str, Any]) -> None:
        plan, answers = self._planned()
        self._want_secrets(answers)
        self._check_medium()
        confirmation.check(plan, self._machine, asked["digest"], asked.get("typed", ""))
        self._work(confirmed=True)

    def _do_resume(self, _asked: dict[str, Any]) -> None:
        if self._found is None:
            raise UsageError("there is no interrupted install to resume")
        self._want_secrets(self._found.answers)
        self._check_medium()
        self._answers, self._plan = self._found.answers, self._found.plan
        self._show_plan()
        self._work()

    def _do_retry(self, _asked: dict[str, Any]) -> None:
        self._want_secrets(self._planned()[1])
        self._check_medium()
        self._work()

    def _do_abandon(self, _asked: dict[str, Any]) -> None:
        """Give an interrupted install up for good. Going back from one that was resumed and failed gives nothing up."""
        failed = self.state == "failed"
        resumed = failed and self._found is not None and self._found.plan == self._plan
        if not resumed:
            # One that failed just now is on its disk as one of another day is: there it stands in the next one's way.
            found = self._world.found(self._machine) if failed else self._found
            if found and (not failed or found.plan == self._plan):
                found.abandon()
        self._found = self._plan = None
        self._history.forget("resumable", "notice", "plan", "failed")
        # There may be another.
        self._looked([self._look, self._find])
        self._enter("answering")

    def _do_stop(self, _asked: dict[str, Any]) -> None:
        self.stop()

    def _do_detect(self, _asked: dict[str, Any]) -> None:
        self._look()
        if self.state == "planned":
            # It was made for the machine as it was; whoever saw it looks at another one before confirming.
            self._plan = None
            self._history.forget("plan")
            self._enter("answering")

    def _do_recovery_key(self, _asked: dict[str, Any]) -> None:
        if self._recovery_key:
            self._tell("recovery_key", key=self._recovery_key)

    def _do_noted(self, _asked: dict[str, Any]) -> None:
        self._recovery_key = ""

    def _do_verify_medium(self, _asked: dict[str, Any]) -> None:
        self._world.command("verify_medium")

    def _do_reboot(self, _asked: dict[str, Any]) -> None:
        self._world.command("reboot")

    def _do_power_off(self, _asked: dict[str, Any]) -> None:
        self._world.command("power_off")

    def _do_door(self, _asked: dict[str, Any]) -> None:
        self._tell("door", **self._world.door())

    # How it goes. ------------------------------------------------------------------------------------------------

    def _planned(self) -> tuple[Plan, Answers]:
        if self._plan is None or self._answers is None:
            raise UsageError("there is no plan yet")
        return self._plan, self._answers

    def _want_secrets(self, answers: Answers) -> None:
        if missing := secrets.missing(answers, self._secrets):
            raise UsageError(f"these secrets were not given yet: {', '.join(missing)}")

    def _look(self) -> None:
        self._machine = self._world.detect()
        self._tell("hardware", machine=self._machine.model_dump(mode="json"), addresses=self._world.addresses())

    def _show_plan(self) -> None:
        plan, answers = self._planned()
        self._tell(
            "plan",
            plan=plan.model_dump(mode="json"),
            digest=plan.digest(),
            before_after=self._world.picture(self._machine, plan),
            wipes=[disk.model_dump(mode="json") for disk in confirmation.wiped(plan, self._machine)],
            warnings=plan.warnings,
            secrets=secrets.missing(answers, self._secrets),
        )

    def _work(self, confirmed: bool = False) -> None:
        plan, answers = self._planned()
        numbers = {action.id: (number, action.kind) for number, action in enumerate(plan.actions, 1)}

        def action(name: str, state: str) -> None:
            self._check_stopped()
            number, kind = numbers[name]
            if kind == "verify" and state == "started":
                self._enter("verifying")
            self._tell("action", id=name, kind=kind, state=state, number=number, total=len(numbers))

        def progress(name: str, done: int, total: int, unit: str) -> None:
            self._check_stopped()
            self._tell("progress", id=name, done=done, total=total, unit=unit)

        context = Context(
            answers=answers.reminded(self._secrets.get(secrets.PASSWORD_HASH)),
            machine=self._machine,
            plan=plan,
            confirmed=confirmed,
            secrets=self._world.secrets(answers, self._secrets),
            progress=progress,
            action=action,
            log=lambda text: self._tell("log", text=text),
            show_recovery_key=self._show_recovery_key,
        )
        self._stopped.clear()
        self._history.forget("action", "progress", "failed", "resumable")
        self._enter("applying")
        self._start(lambda: self._run(context))

    def _run(self, context: Context) -> None:
        try:
            self._world.apply(context)
            outcome = self._world.outcome(context)
        except InstallError as error:
            self._fail(str(error))
        except Exception as error:  # whatever it is: a person reads a sentence, the log has the rest
            self._tell("log", text=traceback.format_exc())
            self._fail(f"the installer itself failed ({type(error).__name__}): press the key for the log")
        else:
            self._secrets.clear()
            self._over("done", **outcome)

    def _fail(self, sentence: str) -> None:
        self._over("failed", sentence=sentence, resumable=True)

    def _over(self, how: State, **fields: Any) -> None:
        # Who hears it may ask for what is possible only then, such as the power off, before we come to the next line.
        with self._lock:
            self._tell(how, **fields)
            self._enter(how)

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise ApplyFailed("stopped as you asked; what was done so far stays, and resuming goes on from there")
        if self._medium_is_broken():
            raise ApplyFailed(_BROKEN)

    def _check_medium(self) -> None:
        """Raises UsageError where what would be installed is known to be spoilt."""
        if self._medium_is_broken():
            raise UsageError(_BROKEN)

    def _medium_is_broken(self) -> bool:
        return bool(self._world.medium().get("verification", {}).get("state") == medium.BROKEN)

    def _show_recovery_key(self, key: str) -> None:
        self._recovery_key = key
        self._tell("recovery_key", key=key)

    def _enter(self, state: State) -> None:
        with self._lock:
            self.state = state
            self._tell("state", state=state)

    def _tell(self, name: str, **fields: Any) -> None:
        kept = [
            *self._secrets.values(),
            *([self._recovery_key] if self._recovery_key and name != "recovery_key" else []),
        ]
        self._history.add(name, secrets.redacted(fields, kept))
