# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The screens: each as text, in both languages, reached by keys alone; and what a person relies on while using them."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import installs
import pytest
import screenshots
import segno
import yaml
from hypothesis import given
from hypothesis import strategies as st
from installs import CANARY, DESK, KEY, Told
from screenshots import Walk
from textual import events
from textual.widgets import Input

from ansible_collections.kind.kos.plugins.module_utils.node.machine import strength
from ansible_collections.kind.kos.plugins.plugin_utils import resolver
from kos_install.answers import Answers
from kos_install.dry_run import summary
from kos_install.engine.this_machine import command
from kos_install.errors import InstallError
from kos_install.hardware import describe
from kos_install.screens import (
    app,
    codes,
    draft,
    form,
    keys,
    leaving,
    lists,
    model,
    offers,
    phases,
    resume,
    saving,
    terminal,
    words,
    works,
)
from kos_install.screens.model import Session
from kos_install.screens.pages import PAGES, disk, profile, services, welcome
from kos_install.screens.pages import person as person_page
from kos_install.screens.pages.disk import before_after
from kos_install.screens.thrift import Thrift
from kos_install.screens.widgets import Choice

MACHINES = Path(__file__).parent / "machines"


@pytest.fixture(scope="module", autouse=True)
def plain_lists():
    """The same lists on every machine that tests; the site's own images do not count either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOS_SITE_LOCK", "/dev/null")
        patch.setattr(lists, "_SYSTEM", lists.Path("/nonexistent"))
        yield
    words.use("en")


@pytest.fixture(scope="module")
def shots():
    return {language: screenshots.shots(language) for language in screenshots.LANGUAGES}


def golden():
    return [path.relative_to(screenshots.FOLDER) for path in sorted(screenshots.FOLDER.rglob("*.txt"))]


@pytest.mark.parametrize("path", golden(), ids=str)
def test_a_screen_is_as_it_was_reviewed(shots, path):
    """Changed on purpose: python tests/unit/screenshots.py, and look at the difference."""
    assert shots[path.parent.name][path.stem] == (screenshots.FOLDER / path).read_text()


def test_every_screen_was_reviewed_in_both_languages(shots):
    assert {str(path) for path in golden()} == {f"{of}/{name}.txt" for of, all_ in shots.items() for name in all_}
    assert set(shots["de"]) == set(shots["en"]) and len(shots["en"]) > 15


def test_every_screen_fits_and_none_shows_a_secret(shots):
    for texts in shots.values():
        for text in texts.values():
            assert len(text.splitlines()) == 24 and all(len(line) <= 80 for line in text.splitlines())
            assert CANARY not in text


def walked(steps, told=None, environ=None, size=(80, 24)):
    """Run a person's steps; what they return."""

    async def run():
        words.use("en")
        async with Walk(told or Told(), environ, size) as person:
            await person.until("Language")
            return await steps(person)

    return asyncio.run(run())


def late(steps, told):
    """The same where the install is over already."""

    async def run():
        words.use("en")
        async with Walk(told) as person:
            return await steps(person)

    return asyncio.run(run())


def test_back_loses_no_answer_and_the_engine_has_the_draft():
    told = Told()

    async def steps(person):
        for _ in range(6):
            await person.press("ctrl+n")
            if "Passphrase" in person.text():
                await person.type(CANARY)
                await person.press("tab")
                await person.type(CANARY)
            if "Where shall" in person.text():
                await person.press("tab", "down", "down")
            if "Who may log in" in person.text():
                await person.press("tab")
                await person.type("Anna")
                break
        for _ in range(5):
            await person.press("escape")
        await person.until("Language")
        for _ in range(5):
            await person.press("ctrl+n")
        return person.text(), person.app.session.draft

    text, kept = walked(steps, told)
    assert "Anna" in text
    assert kept.answers["storage"]["disk"] == {"serial": "WD-1"} and kept.secrets["passphrase"] == CANARY
    assert told.history.newest("draft")["answers"]["user"] == {"full_name": "Anna"}
    assert CANARY not in json.dumps(told.events)


async def to_the_page_before_the_review(person):
    """Whole disk, passphrase, key; where that leads to no disk that is wiped, nothing more is asked for."""
    await person.press("ctrl+n", "ctrl+n")
    await person.until("WDC")
    await person.press("tab", "down", "down")
    await person.press("ctrl+n")
    await person.until("Passphrase")
    await person.type(CANARY)
    await person.press("tab")
    await person.type(CANARY)
    await person.press("ctrl+n", "ctrl+n")
    await person.until("User name")
    await person.press("tab", "tab", "tab", "tab")
    await person.type(KEY)
    await person.press("ctrl+n", "ctrl+n")
    await person.until("qdrant")


def test_what_is_typed_after_tab_goes_into_the_next_field_however_fast_it_comes():
    async def steps(person):
        await person.press("ctrl+n", "ctrl+n")
        await person.until("WDC")
        await person.press("tab", "down", "down", "ctrl+n")
        await person.until("Passphrase")
        await person.rush(*"abcdefgh", "tab", *"ijk")
        for _ in range(100):
            await person.pilot.pause(0.02)
            if "k" in (last := person.app.focused.value):
                break
        return last, [field.value for field in person.app.screen.query(Input)]

    last, fields = walked(steps)
    assert last == "ijk" and fields[:2] == ["abcdefgh", "ijk"]


def test_a_review_that_nobody_has_seen_is_not_answered():
    """Continue, and continue again because the page is slow: the last screen before the disk is not passed by that."""
    told = Told()

    async def steps(person):
        asked = person.app.confirm = Mock()
        await to_the_page_before_the_review(person)
        early = events.Key("ctrl+n", None)
        await person.rush("ctrl+n", "ctrl+n")
        await person.until("kos-root")
        # As a machine does that was busy with drawing.
        person.app.post_message(early)
        await person.pilot.pause(0.2)
        before = asked.call_count
        await person.press("ctrl+n")
        await person.pilot.pause(0.2)
        return before, asked.call_count

    assert walked(steps, told) == (0, 1)


def slowly(page, gate):
    """The same page, which is made only when a person has waited."""

    def make(session):
        assert gate.wait(60)
        return page(session)

    return make


def test_a_page_that_is_slow_to_make_says_so_and_what_was_typed_meanwhile_counts_on_it(monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(app, "PAGES", (PAGES[0], slowly(PAGES[1], gate), *PAGES[2:]))

    async def steps(person):
        await person.rush("ctrl+n", "ctrl+n")
        await person.until("Making the page ...")
        before = person.text()
        gate.set()
        await person.until("Where shall kOS go?")
        return before, person.text()

    before, after = walked(steps)
    assert "Language" in before and before.splitlines()[-1].startswith(" Making the page ...")
    assert after.splitlines()[-1].startswith(" F1 help")


def test_one_slow_thing_after_another_lets_no_key_in_between(monkeypatch):
    """The profile is judged beside the screen, then the next page is made there: Ctrl+N twice is no page skipped."""
    judged, gate = threading.Event(), threading.Event()
    monkeypatch.setattr(app, "PAGES", (*PAGES[:2], slowly(PAGES[2], gate), *PAGES[3:]))
    monkeypatch.setattr(form, "wrong", lambda page, kept: model.wrong(page, kept) if judged.wait(60) else ["late"])

    async def steps(person):
        judged.set()
        await person.press("ctrl+n")
        await person.until("What shall this machine be?")
        judged.clear()
        await person.rush("ctrl+n", "ctrl+n")
        await person.until(" Working out what the profile brings here ...")
        judged.set()
        await person.until("Making the page ...")
        await person.pilot.pause(0.3)
        gate.set()
        await person.until("! Disk: choose a disk")
        return person.text()

    assert "Where shall kOS go?" in walked(steps)


def test_a_page_that_is_ready_late_hides_no_install_that_another_screen_began(monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(app, "PAGES", (PAGES[0], slowly(PAGES[1], gate), *PAGES[2:]))

    async def steps(person):
        await person.rush("ctrl+n")
        await person.until("Making the page ...")
        person.app._hear({"event": "state", "seq": 0, "state": "applying"})
        await person.until("kOS  Installing")
        gate.set()
        await person.press("f1", "escape")
        return person.text()

    assert "kOS  Installing" in walked(steps)


def test_a_password_is_hashed_once_and_the_screen_says_so(monkeypatch):
    gate, hashed = threading.Event(), []

    def slow(password):
        assert gate.wait(60)
        hashed.append(password)
        return "$6$" + "x" * 86

    monkeypatch.setattr(person_page, "sha512_crypt", Mock(hash=slow, verify=None))
    told = Told(machine=DESK.model_copy(update={"disks": [installs.BLANK]}))

    async def steps(person):
        person.app.session.draft.secrets["passphrase"] = CANARY
        person.app.session.draft.scratch["again:passphrase"] = (CANARY, True)
        await person.press("ctrl+n", "ctrl+n", "ctrl+n", "ctrl+n", "ctrl+n")
        await person.until("Who may log in")
        await person.press("tab", "tab")
        await person.type("abcdefgh")
        await person.press("tab")
        await person.type("abcdefgh")
        await person.rush("ctrl+n")
        await person.until("Making the hash of the password ...")
        gate.set()
        await person.until("Time zone")
        await person.press("ctrl+n", "escape", "escape", "ctrl+n")
        await person.until("Time zone")

    walked(steps, told)
    assert hashed == ["abcdefgh"]
    assert told.history.newest("draft")["answers"]["user"]["password_hash"].startswith("$6$")


def test_what_the_engine_is_at_is_said_until_it_answers():
    async def steps(person):
        told = []
        person.link.send = AsyncMock()
        for do, (called, _ends) in works.ASKED.items():
            person.app.ask(do)
            await person.until(f" {called()} ...")
            person.app._hear({"event": "refused", "seq": 0, "faults": ["no"]})
            await person.until(" F1 help")
            told.append(do)
        return told

    assert walked(steps) == list(works.ASKED)


def test_how_long_it_takes_is_counted():
    at = works.Works()
    assert at.said() == ""
    at.begun = {"plan": ("Making the plan", 100.0)}
    assert at.said(100.4) == "Making the plan ..." and at.said(107.2) == "Making the plan ... 7 s"
    at.told("log")
    assert at.said(107.2)
    at.told("plan")
    assert at.said(107.2) == ""


def test_the_medium_is_told_of_on_every_screen_while_it_is_read():
    told = Told()
    told.history.add("medium", {**screenshots.MEDIUM, "verification": {"state": "running", "done": 1, "total": 4}})

    async def steps(person):
        await person.press("ctrl+n")
        await person.until("What shall this machine be?")
        running = person.text()
        told.history.add("medium", {**screenshots.MEDIUM, "verification": {"state": "broken", "said": ["spoilt"]}})
        person.link.news()
        await person.until("THIS MEDIUM IS BROKEN")
        return running

    assert "verifying the medium: 25 %" in walked(steps, told).splitlines()[0]


def test_whoever_comes_late_is_shown_the_recovery_key_before_the_end():
    told = Told()
    told.confirmed()

    async def steps(person):
        await person.until("[ I have written it down ]")
        shown = person.text()
        await person.press("enter")
        await person.until("SSH fingerprint")
        return shown, person.app.session.recovery_key

    shown, kept = late(steps, told)
    assert installs.RECOVERY.split("-")[0] in shown and kept == ""


def test_leaving_asks_nothing_where_nothing_was_answered():
    async def steps(person):
        person.app.exit = Mock()
        await person.press("ctrl+q")
        return person.app.exit.call_count

    assert walked(steps) == 1


def test_leaving_asks_once_says_what_is_lost_and_hands_the_answers_over():
    told = Told(machine=DESK.model_copy(update={"disks": [installs.BLANK]}))
    told.history.add("medium", screenshots.MEDIUM)

    async def steps(person):
        person.app.exit = Mock()
        person.app.session.draft.put("hostname", "attic")
        person.app.session.touched = True
        await person.press("ctrl+q", "ctrl+q")
        await person.until("Leave the installer?")
        asked, depth = person.text(), len(person.app.screen_stack)
        await person.press("escape")
        stayed = person.app.exit.call_count, len(person.app.screen_stack)
        await person.press("ctrl+q", "enter")
        await person.pilot.pause(0.2)
        return asked, depth, stayed, person.app.exit.call_count

    asked, depth, stayed, left = walked(steps, told)
    assert "Your answers are kept while this machine is on" in asked and "typed again" in " ".join(asked.split())
    assert stayed == (0, depth - 1) and left == 1
    assert told.history.newest("draft")["answers"]["hostname"] == "attic"


@pytest.mark.parametrize(
    ("state", "more", "said"),
    [
        ("answering", {}, ""),
        ("answering", {"touched": True}, "Your answers are kept"),
        ("answering", {"touched": True, "verification": {"state": "rehearsed"}}, "its answers are lost"),
        ("applying", {}, "The install goes on without this screen"),
        ("applying", {"verification": {"state": "rehearsed"}}, "The rehearsal ends"),
        ("failed", {}, "what was done stays"),
        ("done", {}, ""),
        ("done", {"recovery_key": installs.RECOVERY}, "The recovery key is not written down yet"),
    ],
)
def test_what_leaving_loses(state, more, said):
    told = leaving.about(Session(state=state, **more))
    assert said in told and bool(said) == bool(told)


@pytest.mark.parametrize(("rows", "shown"), [(24, False), (48, True)])
def test_a_long_list_takes_the_room_of_a_tall_screen(rows, shown):
    async def steps(person):
        await person.press("ctrl+n")
        await person.until("big enough")
        await person.pilot.pause(0.1)
        return person.text(), person.app.screen.query_one(Choice).size.height

    text, height = walked(steps, size=(80, rows))
    assert ("one person, without other machines" in text) is shown and (height > Choice.LEAST) is shown
    assert "Not in this release" in text or not shown, "nothing else is pushed out by it"


@pytest.mark.parametrize(
    ("columns", "shown"), [(80, "Graph database with openCypher..."), (120, "with openCypher queries")]
)
def test_what_a_service_does_is_cut_where_the_screen_ends(columns, shown):
    async def steps(person):
        person.app._at = [made.__module__.rpartition(".")[2] for made in PAGES].index("services")
        person.app._open()
        await person.until("big enough")
        await person.until(shown)

    walked(steps, size=(columns, 24))


def test_a_refused_disk_is_never_chosen():
    async def steps(person):
        await person.press("ctrl+n", "ctrl+n")
        await person.until("Where shall")
        seen = set()
        await person.press("tab")
        for _ in range(6):
            await person.press("down")
            seen.add(person.app.session.draft.scratch.get("storage.disk"))
        return seen

    assert walked(steps) <= {None, "/dev/nvme0n1", "/dev/sda"}


def test_the_only_disk_there_is_is_shown_before_and_after():
    session = Session(machine=DESK.model_copy(update={"disks": [installs.BLANK, installs.STICK]}))
    assert "EVERYTHING ON THIS DISK IS LOST" in before_after(session)
    assert before_after(Session(machine=DESK)) == "", "of two that could be meant neither is"


def test_nothing_is_chosen_by_only_passing_through():
    async def steps(person):
        await person.press("ctrl+n", "ctrl+n")
        await person.until("Where shall")
        await person.press("tab", "tab", "tab", "ctrl+n")
        return person.text()

    assert "! Disk: choose a disk" in walked(steps)


EQUAL = describe.load(MACHINES / "equal_disks.json")


@pytest.mark.parametrize("key", ["space", "enter"])
def test_a_key_chooses_what_one_stands_on_before_it_leads_on(key):
    async def steps(person):
        await person.press("ctrl+n", "ctrl+n")
        await person.until("Where shall")
        await person.press("tab", key)
        first = person.app.session.draft.scratch.get("storage.disk"), person.app.focused.question.name
        await person.press(key)
        return first, person.app.focused.question.name, person.text()

    chosen, later, text = walked(steps, Told(machine=EQUAL))
    assert chosen == ("/dev/nvme0n1", "storage.disk") and later == "storage.data"
    assert "(*) nvme0n1  960 GB  INTEL SSDPE2KX010T8  serial PHAC1" in text
    assert "( ) nvme1n1  960 GB  INTEL SSDPE2KX010T8  serial PHAC2" in text


def test_a_long_serial_number_is_shown_by_its_end_unless_that_is_not_its_own():
    serials = ("AAAA1234567890", "BBBB123456789X")
    long = [one.model_copy(update={"serial": serial}) for one, serial in zip(EQUAL.disks, serials, strict=True)]
    alike = [
        one.model_copy(update={"path": f"/dev/nvme{n}n1", "serial": f"{n}-1234567890"}) for n, one in enumerate(long)
    ]
    for disks, shown in ((long, ["..34567890", "..3456789X"]), (alike, ["0-1234567890", "1-1234567890"])):
        here = EQUAL.model_copy(update={"disks": disks})
        labels = [option.label for option in disk.choices(here, 0)]
        assert all(f"serial {serial}" in label for serial, label in zip(shown, labels, strict=True))


def test_a_list_opens_once_however_often_its_key_comes():
    async def steps(person):
        await person.press("ctrl+n", "ctrl+n")
        await person.until("Where shall")
        await person.press("tab", "down", "tab")
        for _ in range(3):
            person.app.focused.action_press()
        await person.pilot.pause()
        depth = len(person.app.screen_stack)
        await person.press("escape")
        return depth - len(person.app.screen_stack), person.text()

    closed, text = walked(steps, Told(machine=EQUAL))
    assert closed == 1 and "[ Continue ]" in text and "type to search" not in text


def test_a_fault_leads_to_its_field():
    async def steps(person):
        await person.press("ctrl+n", "ctrl+n")
        await person.until("Where shall")
        await person.press("tab", "tab", "tab", "ctrl+n")
        return person.app.focused.question.name

    assert walked(steps) == "storage.disk"
    session = Session(machine=DESK)
    assert [
        model.astray(page(session), session.draft) for page in PAGES if model.wrong(page(session), session.draft)
    ] == [
        "storage.disk",
        "passphrase",
        "login",
    ]


def test_what_cannot_be_is_said_on_its_own_page():
    """Neither a layout that this disk cannot take nor a machine that is too small waits for the review."""
    blank = DESK.model_copy(update={"disks": [installs.BLANK]})
    session = Session(machine=blank)
    session.draft.put("storage.layout", "free_space")
    assert "/dev/sda" in model.wrong(disk.page(session), session.draft)[0]
    session.draft.put("storage.layout", None)
    assert model.wrong(disk.page(session), session.draft) == []
    small = Session(machine=blank.model_copy(update={"memory_mb": 512}), record={"profile": "server"})
    assert "too small for this profile (memory" in model.wrong(profile.page(small), small.draft)[0]
    small.draft.put("accept_shortfall", profile.lacking(small))
    assert model.wrong(profile.page(small), small.draft) == []


def test_a_service_that_another_stands_for_is_counted_as_that_one_and_once():
    asked = [one for one in offers.offers(DESK, "server") if one.asked]
    plan = offers.planned(draft.Draft(), DESK, "server").plan
    runs = {one.instead or one.name: one.memory_mb for one in asked if one.instead is not None}
    planned = {service.name: resolver.memory_mb(service.manifest) for service in plan.services}
    assert {name: memory for name, memory in runs.items() if name in planned} == {
        name: planned[name] for name in runs if name in planned
    }
    by_name = {one.name: one for one in asked}
    assert by_name["neo4j_community"].instead == "age" and by_name["neo4j_community"].memory_mb == planned["age"]
    assert by_name["grafana"].instead is None, "another service of its capability is not its stand-in"
    assert all(one.memory_mb == 0 for one in asked if one.instead is None)
    assert sum(one.memory_mb for one in asked) <= plan.requires["memory_mb"]


def test_memory_has_one_figure_on_every_page():
    session = Session(
        machine=DESK.model_copy(update={"memory_mb": 7700}),
        record={**screenshots.MEDIUM["record"], "profile": "server"},
    )
    told = [welcome.machine(session), profile.brings(session), services.page(session).aside(session)]
    told += [dry_run for dry_run in summary(session.machine) if "memory" in dry_run]
    assert all("7.5 GB" in text and "7700" not in text for text in told), told


@pytest.mark.parametrize(
    ("record", "now", "said"),
    [
        ({}, {"state": "running"}, "none: this system was not started from one of kOS"),
        ({}, {"state": "unknown", "said": ["no medium"]}, "none: this system was not started from one of kOS"),
        ({}, {"state": "rehearsed", "said": []}, "not looked at: this is a rehearsal, and no disk is written to"),
        (screenshots.MEDIUM["record"], {"state": "running", "done": 1, "total": 4}, "Verifying this medium: 25 %"),
        (screenshots.MEDIUM["record"], {"state": "unknown", "said": ["no key"]}, "Not verified: no key"),
        (screenshots.MEDIUM["record"], screenshots.MEDIUM["verification"], "Verified: all 2 GB"),
    ],
)
def test_of_a_medium_one_truth_is_told(record, now, said):
    told = welcome.medium(record, now)
    assert said in told
    truths = ("none:", "not looked at", "Verifying", "Not verified", "Verified:", "BROKEN")
    assert sum(truth in told for truth in truths) == 1


def test_a_rehearsal_says_so_at_every_screen_and_in_german():
    async def steps(person):
        await person.until("REHEARSAL: nothing is installed")
        assert "this is a rehearsal, and no disk" in person.text()
        await person.press("down")
        await person.until("PROBE: nichts wird installiert")
        await person.press("ctrl+n", "ctrl+n")
        await person.until("Wohin soll")
        return person.text()

    told = Told()
    told.history.add("medium", told.engine._world.medium())
    text = walked(steps, told)
    assert "PROBE: nichts wird installiert" in text.splitlines()[0]
    words.use("en")


def test_a_saved_file_has_what_is_chosen_and_overwrites_nothing_unasked(tmp_path):
    there = tmp_path / "answers.yaml"
    there.write_text("mine\n")

    async def save(person, name):
        for _ in range(60):
            await person.press("backspace")
        await person.type(name)
        await person.press("enter")

    async def steps(person):
        await person.press("f2", "f2")
        depth = len(person.app.screen_stack)
        await save(person, str(there))
        await person.until("is there already")
        await person.press("enter")
        await person.pilot.pause(0.2)
        await person.press("f2")
        await save(person, str(there))
        await person.until("is there already")
        kept = there.read_text()
        await save(person, str(there))
        await person.pilot.pause(0.2)
        return depth, kept

    only = DESK.model_copy(update={"disks": [installs.BLANK]})
    depth, kept = walked(steps, Told(machine=only))
    assert depth == 3 and kept == "mine\n"
    for path in (there, tmp_path / "answers-2.yaml"):
        saved = yaml.safe_load(path.read_text())
        assert saved["storage"] == {"disk": {"serial": "WD-1"}}
        assert saved["profile"] == "personal_node" and saved["hostname"] == "kos" and saved["timezone"] == "UTC"


def test_a_wrong_answer_keeps_one_on_the_page_and_says_why():
    async def steps(person):
        for _ in range(3):
            await person.press("ctrl+n")
            if "Where shall" in person.text():
                await person.press("tab", "down")
                await person.press("ctrl+n")
        await person.until("Passphrase")
        await person.type("secret")
        await person.press("ctrl+n")
        return person.text()

    text = walked(steps)
    assert "! Passphrase: too easy to guess" in text and "! Once more: it is not the same" in text


def test_the_model_has_to_be_typed():
    told = Told()

    async def steps(person):
        told.planned()
        person.link.news()
        person.app.session.draft.answers = installs.ANSWERS | {"language": "en"}
        person.app.session.draft.secrets["passphrase"] = CANARY
        person.app.session.draft.scratch |= {"storage.disk": "/dev/sda", "again:passphrase": (CANARY, True)}
        for _ in range(8):
            await person.press("ctrl+n")
        await person.until("All on /dev/sda will be lost")
        await person.press("ctrl+n")
        await person.until("to wipe /dev/sda")
        return told.engine.state

    assert walked(steps, told) == "planned"


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_help(page):
    session = Session(machine=DESK)
    made = page(session)
    assert len(made.help) > 80 and made.lead and made.title


def test_the_answers_are_the_file(tmp_path):
    kept = draft.Draft({"version": 1, "user": {"ssh_keys": [KEY]}}, {"passphrase": CANARY}, {"again": CANARY})
    saving.save(kept.answers, tmp_path / "answers.yaml")
    text = (tmp_path / "answers.yaml").read_text()
    assert CANARY not in text and (tmp_path / "answers.yaml").stat().st_mode & 0o777 == 0o600
    from kos_install import answers

    assert answers.load(tmp_path / "answers.yaml") == Answers.model_validate(kept.answers)


def test_a_draft_holds_only_what_was_answered():
    kept = draft.Draft()
    kept.put("encryption.tang.url", "http://tang.example")
    kept.put("encryption.tang", None)
    assert kept.answers == {"version": 1}
    draft.writer("hostname", "kos")(kept, "kos")
    assert "hostname" not in kept.answers
    draft.writer("hostname", "kos")(kept, "node")
    assert kept.get("hostname") == "node"


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        ("aaaaaaaaaaaaaaaaaaaa", "azcqfbxy"),
        ("password123456789", "kelp dune ohm fig"),
        ("abcdefghijklmnop", "abdgkpvq"),
        ("Summer2024", "Sq7!kd02Lw"),
        ("one two three", "one two three four five"),
    ],
)
def test_the_strength_of_passphrases(weaker, stronger):
    assert strength.bits(weaker) < strength.bits(stronger)


@pytest.mark.parametrize(("passphrase", "good"), [("hunter2", False), ("qwertz1234", False), (CANARY, True)])
def test_what_is_refused_as_too_weak(passphrase, good):
    assert (strength.bits(passphrase) >= strength.WEAK) is good


def test_keys_are_read_from_a_text_a_file_and_a_stick(tmp_path, monkeypatch):
    # Another test may have been a guest.
    monkeypatch.setitem(keys._allowed, "files", True)
    (tmp_path / "anna.pub").write_text(f"# mine\n{KEY}\n")
    assert keys.read(f"{KEY}\n\n/anna.pub", tmp_path) == [KEY, KEY]
    assert keys.fault("nonsense", tmp_path) and not keys.fault(KEY)
    assert "private" in keys.fault("-----BEGIN OPENSSH PRIVATE KEY-----")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/authorized_keys").write_text(f"{KEY}\n")
    assert keys.below(tmp_path) == [KEY, KEY] and keys.named(KEY) == "ssh-ed25519 anna@home"


def test_of_a_password_that_is_asked_again_only_a_hash_is_sent():
    words.use("en")
    said = resume.sent("password_hash", CANARY)
    assert said.startswith("$6$") and resume.sha512_crypt.verify(CANARY, said)
    assert resume.sent("passphrase", CANARY) == CANARY and resume.named("password_hash") == "Password of the user"


def test_keys_are_looked_for_on_usb_sticks_alone_and_nothing_is_written(monkeypatch):
    """Internal SATA disks say that they can be plugged, and ext4 replays its journal where it is mounted `ro`."""
    disks = [
        {"path": "/dev/sda", "tran": "sata", "rm": True, "hotplug": True, "fstype": None, "mountpoints": [None],
         "children": [{"path": "/dev/sda1", "tran": None, "fstype": "ext4", "mountpoints": [None]}]},
        {"path": "/dev/sdb", "tran": "usb", "fstype": None, "mountpoints": [None], "children": [
            {"path": "/dev/sdb1", "tran": None, "fstype": "ext4", "mountpoints": [None]},
            {"path": "/dev/sdb2", "tran": None, "fstype": "vfat", "mountpoints": ["/run/live"]},
            {"path": "/dev/sdb3", "tran": None, "fstype": "crypto_LUKS", "mountpoints": [None]}]},
        {"path": "/dev/sdc", "tran": "usb", "fstype": "vfat", "mountpoints": [None]},
    ]  # fmt: skip
    listed = json.dumps({"blockdevices": disks})
    monkeypatch.setattr(keys.subprocess, "run", lambda argv, **_: keys.subprocess.CompletedProcess(argv, 0, listed))
    assert keys._on_usb() == [("/dev/sdb1", "ext4"), ("/dev/sdc", "vfat")]
    ran = []
    monkeypatch.setattr(keys.glance, "run", ran.append)
    assert keys.on_sticks() == []
    options = [argv[4].split(",") for argv in ran if argv[0] == "mount"]
    assert len(options) == 2 and all({"loop", "ro", "noexec"} <= {*one} for one in options) and "noload" in options[0]


def test_a_code_is_read_back():
    """Its light and dark are those of the standard's library, with a border of two."""
    halves = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}
    rows = codes.qr(installs.RECOVERY).splitlines()
    read = [[halves[letter][half] for letter in row] for row in rows for half in (0, 1)]
    made = [list(row) for row in segno.make(installs.RECOVERY, error="l", micro=False, boost_error=False).matrix]
    size = len(made)
    assert [row[2 : 2 + size] for row in read[2 : 2 + size]] == made
    assert not any(map(any, read[:2])) and not any(map(any, read[2 + size :])) and len(rows[0]) == size + 4


def test_time_left_is_told_once_it_can_be():
    session, clock = Session(), phases.Clock()
    session.progress["unpack"] = {"done": 100, "total": 1000, "unit": "bytes"}
    assert clock.left(session, "unpack", 0.0) is None
    session.progress["unpack"] = {"done": 400, "total": 1000, "unit": "bytes"}
    assert clock.left(session, "unpack", 10.0) == pytest.approx(20.0)
    session.state = "failed"
    assert clock.left(session, "unpack", 40.0) is None


def test_a_step_that_counts_nothing_counts_its_seconds():
    session, clock = Session(state="applying"), phases.Clock()
    session.plan = {"plan": {"actions": [{"id": "luks", "kind": "luks"}]}}
    session.actions["luks"] = {"id": "luks", "state": "started"}
    assert phases.lines(session, clock) == ["[>] Encrypt ..."]
    clock.seen["luks"] -= 9
    assert re.fullmatch(r"\[>\] Encrypt \.\.\. \d+ s", phases.lines(session, clock)[0])
    session.state = "failed"
    assert phases.lines(session, clock) == ["[>] Encrypt ..."]


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({"TERM": "vt220"}, "poor"),
        ({"TERM": "linux"}, "plain"),
        ({"TERM": "xterm-256color"}, "rich"),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, "rich"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "poor"),
    ],
)
def test_what_a_terminal_gets(environ, kind):
    assert terminal.look(environ).kind == kind


def test_without_systemd_a_command_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(InstallError, match="systemd"):
        command("reboot")


def test_an_unfit_machine_is_told_and_needs_leave():
    small = DESK.model_copy(update={"memory_mb": 512, "disks": DESK.disks})
    told = Told(machine=small)
    told.history.add("medium", {**screenshots.MEDIUM, "record": {**screenshots.MEDIUM["record"], "profile": "server"}})

    async def steps(person):
        await person.press("ctrl+n")
        await person.until("Too small: memory")
        await person.until("Install though it is too small")
        await person.press("tab", "space")
        return person.app.session.draft.get("accept_shortfall")

    assert "memory" in walked(steps, told)


def test_the_verdict_on_a_broken_medium_is_loud():
    told = Told()
    broken = {"state": "broken", "total": 9, "done": 9, "signer": "", "said": ["kos-root, bytes 0-9: not as made"]}
    told.history.add("medium", {"record": {}, "verification": broken})

    async def steps(person):
        await person.until("BROKEN")
        return person.text()

    assert "Do not install from it" in " ".join(walked(steps, told).split())


def test_a_terminal_is_sent_only_what_is_new_and_no_colours():
    line = "\x1b[2;1H\x1b[1;38;2;1;2;3;49mkOS\x1b[0m\x1b[39;49m is here" + " " * 69 + "\x1b[0m\n"
    thrift = Thrift(colours=False)
    assert thrift.less("\x1b[?1049h" + line, 80) == "\x1b[?1049h\x1b[2;1HkOS is here\x1b[K"
    assert thrift.less(line, 80) == ""
    assert thrift.less(line.replace("here", "hErE"), 80) == "\x1b[2;9HErE"
    thrift.forget()
    assert "kOS is here" in thrift.less(line, 80)
    assert (
        thrift.less("\x1b]22;default\x07\x1b[>25u\x1b[3;4H\x1b[7;49mx\x1b[0m\r\n", 80) == "\x1b[3;4H\x1b[0;7mx\x1b[0m"
    )


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 8), st.text("ab █", min_size=1, max_size=6)), max_size=12))
def test_what_is_left_out_would_not_be_seen(pieces):
    """A terminal that gets less shows the same as one that gets all of it."""
    thrift, whole, thrifty = Thrift(colours=True), {}, {}
    for row, column, text in pieces:
        sent = f"\x1b[{row};{column}H{text[: 9 - column]}"
        draw(whole, sent)
        draw(thrifty, thrift.less(sent, 8))
    blank = {place: letter for place, letter in whole.items() if letter != " "}
    assert blank == {place: letter for place, letter in thrifty.items() if letter != " "}


def draw(cells, text):
    """What a terminal of 8 columns makes of it."""
    for row, column, what in re.findall(r"\x1b\[(\d+);(\d+)H((?:(?!\x1b\[\d+;\d+H).)*)", text, re.DOTALL):
        plain, erased = re.sub(r"\x1b\[K", "", what), "\x1b[K" in what
        for at, letter in enumerate(plain):
            cells[int(row), int(column) + at] = letter
        for at in range(int(column) + len(plain), 9) if erased else ():
            cells[int(row), at] = " "
