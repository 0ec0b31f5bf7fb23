# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same pages, asked line by line: for any terminal, a log of a serial line, a screen reader. The same answers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..engine.client import Client
from ..engine.confirmation import called
from ..hardware.model import Disk
from . import done, flow, prompts, saving, tools
from .model import Page, Session, wrong
from .pages import PAGES, SLOW, making
from .phases import called as named
from .prompts import BACK, FORWARD, Back, say
from .resume import meant, sent, wanted
from .resume import named as secret_named
from .said import picture, said
from .summary import summary
from .words import _, use
from .works import ASKED

_PATIENCE = 120.0  # seconds that the engine has to answer
_TOLD_EVERY = 10  # per cent


class _Over(Exception):
    """The engine ended."""


def run(connect: Callable[[], Client], local: bool, guest: bool = False) -> None:
    """Ask, install, say how it went; `guest`: for who came in over SSH. Raises OSError where there is no engine."""
    with connect() as client:
        _Plain(client, local, guest).run()


class _Plain:
    """One client that asks line by line."""

    def __init__(self, client: Client, local: bool, guest: bool = False) -> None:
        self.session = Session()
        self._client, self._local, self._guest = client, local, guest
        self._told: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for event in self._client.events():
                self._told.put(event)
        except (OSError, ValueError):
            pass
        self._told.put(None)

    def run(self) -> None:
        """Whatever the engine is at, that is shown."""
        self._client.send("recovery_key")  # another screen may have been shown it, and be gone
        self._until(lambda _event: self.session.state != "detecting")
        use(self.session.draft.get("language", "en"))
        stages = {
            "answering": self._answer,
            "planned": self._review,
            "applying": self._watch,
            "verifying": self._watch,
            "failed": self._failed,
        }
        while self.session.state != "done":
            stages[self.session.state]()
        self._finish()

    # Events. -----------------------------------------------------------------------------------------------------

    def _hear(self, wait: float | None = None) -> dict[str, Any] | None:
        try:
            event = self._told.get(timeout=wait) if wait else self._told.get_nowait()
        except queue.Empty:
            return None
        if event is None:
            raise _Over
        self.session.hear(event)
        return event

    def _until(self, enough: Callable[[dict[str, Any]], bool], wait: float = _PATIENCE) -> dict[str, Any]:
        while True:
            event = self._hear(wait)
            if event is None:
                raise TimeoutError(_("the engine does not answer"))
            if enough(event):
                while self._hear() is not None:
                    pass
                return event

    def _request(self, do: str, **fields: Any) -> None:
        """Ask for something; what takes its time is said."""
        if do in ASKED:
            say(f"{ASKED[do][0]()} ...")
        self._client.send(do, **fields)

    # Stages. -----------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        say("\n".join(f"! {said(sentence)}" for sentence in self.session.notices))
        self.session.notices = []
        if self.session.resumable:
            self._resume()
            return
        flow.recall(self.session)
        say(_("At any question: ? explains, < goes back, ! leads to a shell, the network, and off."))
        at = 0
        while at < len(PAGES):
            while self._hear() is not None:
                pass
            step = self._ask(PAGES[at])
            at += step if at else max(step, 0)
            flow.settle(self.session)
            self._client.send("draft", answers=self.session.draft.answers)
        self._review()

    def _ask(self, make: Callable[[Session], Page]) -> int:
        """Ask a page; where to go from it."""
        while True:
            if make in SLOW:
                say(f"{making(make)} ...")
            page = make(self.session)
            mark = " " + _("REHEARSAL: nothing is installed") if self.session.rehearsed else ""
            say(f"\n== {page.title} =={mark}\n{page.lead}")
            if page.name == "welcome":
                say(page.aside(self.session))
            try:
                for number in range(len(page.questions)):
                    # An answer may change what is asked next: its words, with the language.
                    question = make(self.session).questions[number]
                    if question.shown(self.session.draft):
                        self._put(page, question)
            except Back:
                return BACK
            if page.name != "welcome" and (aside := page.aside(self.session)):
                say(aside)
            faults = wrong(page, self.session.draft)
            if not faults:
                return FORWARD
            say("\n".join(f"! {said(fault)}" for fault in faults))

    def _put(self, page: Page, question: Any) -> None:
        session = self.session
        while True:
            try:
                value = prompts.ask(question, question.read(session.draft))
            except prompts.Help:
                say(page.help)
            except prompts.Tools:
                self._tools()
            else:
                session.touched = True
                question.write(session.draft, value)
                if question.name == "language":
                    use(session.draft.get("language", "en"))
                fault = question.check(question.read(session.draft))
                if not fault:
                    return
                say(f"! {fault}")

    def _review(self) -> None:
        session = self.session
        flow.settle(session)
        session.plan = {}
        for do, fields in flow.answering(session):
            self._request(do, **fields)
        self._until(lambda event: event["event"] in {"plan", "refused"})
        if not session.plan:
            say("\n".join(f"! {said(fault)}" for fault in session.faults))
            prompts.wait(_("Enter: back to the questions"))
            self._answer()
            return
        say(f"\n== {_('Review')} ==\n{summary(session)}\n\n{picture(session.plan['before_after'])}")
        say("\n".join(f"! {said(warning)}" for warning in session.plan["warnings"]))
        self._confirm()

    def _confirm(self) -> None:
        session = self.session
        typed = []
        try:
            for disk in (Disk.model_validate(row) for row in session.plan["wipes"]):
                text = _("All on {path} will be lost. To confirm, type its name: {name}")
                typed.append(prompts.line(text.format(path=disk.path, name=called(disk, session.machine))))
            if not typed:
                prompts.line(_("Nothing is wiped. Enter installs"))
        except Back:
            self._answer()
            return
        session.faults = []
        self._request("confirm", digest=session.plan["digest"], typed=typed)
        self._until(lambda event: event["event"] == "refused" or session.state in {"applying", "failed", "done"})
        say("\n".join(f"! {said(fault)}" for fault in session.faults))
        if session.state == "planned":
            self._confirm()

    def _resume(self) -> None:
        found = self.session.resumable
        say(flow.interrupted(found))
        if prompts.choose([_("Resume"), _("Start over")]) == 1:
            if meant(prompts.line(_("Type start over"))):
                self.session.resumable = {}
                self._request("abandon")
                self._until(lambda event: event["event"] == "state")
            return
        for name in wanted(found["answers"]):
            self._client.send("secret", name=name, value=sent(name, prompts.secret(secret_named(name))))
        self.session.faults = []
        self._request("resume")
        self._until(lambda event: event["event"] == "refused" or self.session.state != "answering")
        say("\n".join(f"! {said(fault)}" for fault in self.session.faults))

    def _watch(self) -> None:
        told: dict[str, int] = {}
        while self.session.state in {"applying", "verifying"}:
            event = self._hear(1.0)
            if event and event["event"] == "action" and event["state"] != "done":
                say(f"[{event['number']}/{event['total']}] {named(event['kind'])}")
            elif event and event["event"] == "progress" and event["total"]:
                share = 100 * event["done"] // event["total"] // _TOLD_EVERY * _TOLD_EVERY
                if told.get(event["id"], 0) < share < 100:
                    told[event["id"]] = share
                    say(f"  {share} %")

    def _failed(self) -> None:
        self._until(lambda _event: True, 1.0) if not self.session.failed else None
        say(f"! {said(self.session.failed.get('sentence', ''))}")
        choice = prompts.choose([_("Try again"), _("Other secrets"), _("Change the answers"), _("Log")])
        if choice == 3:
            say("\n".join(self.session.log))
            return
        text = _("What the interrupted install encrypted cannot be opened any more. Type start over to do so.")
        if choice == 2 and not meant(prompts.line(text)):
            return
        for name in wanted(self.session.answers()) if choice == 1 else ():
            self._client.send("secret", name=name, value=sent(name, prompts.secret(secret_named(name))))
        self._request("abandon" if choice == 2 else "retry")
        self._until(lambda event: event["event"] in {"state", "refused"})

    def _finish(self) -> None:
        while self._hear(0.5) is not None:
            pass
        if key := self.session.recovery_key:
            say(f"\n== {_('Recovery key')} ==\n{key}")
            say(_("Write this down now. It opens the disk when the passphrase is lost, and is shown once."))
            prompts.wait(_("Enter: it is written down"))
            self._client.send("noted")
        say(f"\n== {_('Done')} ==\n{done.said(self.session.done)}")
        choice = prompts.choose([_("Start the installed machine"), _("Power off"), _("Leave it on")])
        if choice < 2:
            self._request(("reboot", "power_off")[choice])

    def _tools(self) -> None:
        entries = tools.entries(self._local)
        if not self._guest:
            entries["save"] = _("Save the answers to a file")
        names = [*entries, ""]
        chosen = names[prompts.choose([*entries.values(), _("Back")], back=True)]
        if chosen == tools.SHELL:
            tools.shell(_("kai is here: kai --help. exit leads back to the installer."))
        elif chosen == tools.NETWORK:
            tools.network(_("Press Enter to go back."))
        elif chosen == "save":
            self._save()
        elif chosen:
            self._request(chosen)
            self._door() if chosen == tools.DOOR else None

    def _save(self) -> None:
        say(saving.about(self.session))
        offered, taken = saving.USUAL, ""
        while True:
            try:
                path = prompts.line(_("File"), str(offered))
                saving.save(flow.chosen(self.session), Path(path), over=path == taken)
                say(_("saved: {path}").format(path=path))
                return
            except FileExistsError:
                say(saving.there(Path(path)))
                offered, taken = saving.free(Path(path)), path
            except OSError as error:
                say("! " + _("not saved: {why}").format(why=error.strerror or str(error)))
                return
            except (Back, prompts.Help, prompts.Tools):
                return

    def _door(self) -> None:
        self._until(lambda event: event["event"] in {"door", "refused"})
        say("\n".join(tools.invitation(self.session.door)) if self.session.door else "\n".join(self.session.faults))
