# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine: what may follow on what, that nothing is wiped unconfirmed, and that no event holds a secret."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import installs
import pytest
from golden_installs import MACHINES
from installs import ANSWERS, BLANK, CANARY, RECOVERY, Told, names

from ansible_collections.kind.kos.plugins.plugin_utils.faults import Place
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse
from kos_install.answers import Answers
from kos_install.engine import confirmation, replay
from kos_install.engine.events import event
from kos_install.engine.history import History
from kos_install.engine.world import Found
from kos_install.errors import ApplyFailed
from kos_install.hardware import describe
from kos_install.storage.actions import Plan

RECORDINGS = Path(replay.__file__).parents[2] / "recordings"


def test_an_install_from_the_first_answer_to_the_end():
    told = Told()
    assert names(told.events) == ["state", "hardware", "state"]
    events = told.confirmed()
    states = [one["state"] for one in events if one["event"] == "state"]
    assert states == ["applying", "verifying", "done"]
    actions = [(one["number"], one["state"]) for one in events if one["event"] == "action"]
    total = len(told.history.newest("plan")["plan"]["actions"])
    assert actions == [(number, state) for number in range(1, total + 1) for state in ("started", "done")]
    assert events[-2]["hostname"] == "kos"
    assert [one["seq"] for one in told.events] == list(range(1, len(told.events) + 1))


@pytest.mark.parametrize(
    ("digest", "typed", "said"),
    [
        ("0" * 64, BLANK.model, "the plan has changed"),
        (None, "", "type what it is called: WDC WD20EFRX"),
        (None, "WDC", "type what it is called"),
        (None, [], "type what it is called"),
        (None, "Samsung SSD 980 PRO", "type what it is called"),
    ],
)
def test_nothing_is_wiped_that_was_not_typed(digest, typed, said):
    """Complaint 9: what goes is shown by name, and who agrees has typed it."""
    told = Told()
    plan = told.planned()
    (refused,) = told.ask("confirm", digest=digest or plan["digest"], typed=typed)
    assert said in refused["faults"][0] and told.engine.state == "planned"


@pytest.mark.parametrize("typed", ["wdc  wd20efrx", "WD-1", [BLANK.model]])
def test_a_disk_is_typed_by_model_or_serial_number(typed):
    told = Told()
    plan = told.planned()
    assert told.ask("confirm", digest=plan["digest"], typed=typed)[-1]["state"] == "done"


def test_each_disk_of_a_mirror_is_typed():
    twins = [BLANK.model_copy(update={"path": f"/dev/sd{letter}", "serial": f"WD-{letter}"}) for letter in "ab"]
    told = Told(machine=installs.DESK.model_copy(update={"disks": twins}))
    storage = {"layout": "mirror", "disk": {"serial": "WD-a"}, "second": {"serial": "WD-b"}}
    plan = told.planned({**ANSWERS, "storage": storage})
    assert len(plan["wipes"]) == 2
    for typed, lacking in (
        ([BLANK.model] * 2, "to wipe /dev/sda, type what it is called: WD-a"),
        (["WD-a"], "to wipe /dev/sdb, type what it is called: WD-b"),
        (["WD-a", "WD-a"], "to wipe /dev/sdb, type what it is called: WD-b"),
    ):
        (refused,) = told.ask("confirm", digest=plan["digest"], typed=typed)
        assert refused["faults"] == [lacking] and told.engine.state == "planned"
    assert told.ask("confirm", digest=plan["digest"], typed=["wd-b", "WD-a"])[-1]["state"] == "done"


def test_a_disk_of_a_model_that_is_there_twice_is_typed_by_what_it_alone_has():
    """Also where the other one of the two is not wiped at all."""
    twin = BLANK.model_copy(update={"path": "/dev/sdx", "serial": "WD-2", "model": "wdc  wd20efrx"})
    told = Told(machine=installs.DESK.model_copy(update={"disks": [*installs.DESK.disks, twin]}))
    plan = told.planned()
    (refused,) = told.ask("confirm", digest=plan["digest"], typed=BLANK.model)
    assert refused["faults"] == ["to wipe /dev/sda, type what it is called: WD-1"]
    (refused,) = told.ask("confirm", digest=plan["digest"], typed="WD-2")
    assert told.engine.state == "planned"
    nameless = BLANK.model_copy(update={"path": "/dev/sdx"})
    here = installs.DESK.model_copy(update={"disks": [BLANK, nameless]})
    assert confirmation.called(BLANK, here) == "/dev/sda", "not even the serial number tells them apart"


@pytest.mark.parametrize(
    ("do", "fields"),
    [("confirm", {"digest": "", "typed": ""}), ("resume", {}), ("retry", {}), ("stop", {}), ("format", {}), ("", {})],
)
def test_what_is_out_of_turn_is_refused_and_changes_nothing(do, fields):
    told = Told()
    (refused,) = told.ask(do, **fields)
    assert refused["event"] == "refused" and told.engine.state == "answering"


@pytest.mark.parametrize("request_", [{"do": "answer"}, {"do": "draft", "answers": 1}, {"do": ["plan"]}, {}])
def test_what_cannot_be_read_is_refused(request_):
    told = Told()
    before = len(told.events)
    told.engine.request(request_)
    assert [one["event"] for one in told.events[before:]][-1] == "refused"


def test_new_answers_need_a_new_plan_and_a_new_confirmation():
    told = Told()
    plan = told.planned()
    told.ask("answer", answers={**ANSWERS, "hostname": "other"})
    (refused,) = told.ask("confirm", digest=plan["digest"], typed=BLANK.model)
    assert "not possible while" in refused["faults"][0]


def test_a_secret_that_is_missing_is_asked_for_before_anything_is_touched():
    told = Told()
    told.ask("answer", answers=ANSWERS)
    plan = told.ask("plan")[0]
    assert plan["secrets"] == ["passphrase"]
    (refused,) = told.ask("confirm", digest=plan["digest"], typed=BLANK.model)
    assert "passphrase" in refused["faults"][0]


@pytest.mark.parametrize("value", ["", "a\nb", 7, "x" * 513])
def test_a_secret_that_nobody_could_type_is_refused_without_repeating_it(value):
    (refused,) = Told().ask("secret", name="passphrase", value=value)
    assert (refused["event"] == "refused" and str(value) not in refused["faults"][0].replace("", " ")) or value == ""


def test_no_event_and_no_history_holds_a_secret():
    told = Told()
    events = told.confirmed()
    assert CANARY not in json.dumps(told.events)
    assert [one["event"] for one in events if RECOVERY in json.dumps(one)] == ["recovery_key"]
    assert RECOVERY not in json.dumps(told.history.replay())
    assert any("a careless program said *** and ***" in one.get("text", "") for one in events)


def test_the_recovery_key_is_told_again_until_it_is_noted():
    told = Told()
    told.confirmed()
    assert told.ask("recovery_key")[0]["key"] == RECOVERY
    told.ask("noted")
    assert told.ask("recovery_key") == []


def test_what_fails_can_be_tried_again():
    told = Told([*installs.RECORDED, {"kind": "converge", "fail": "the disk is full: take a larger one"}])
    events = told.confirmed()
    assert [one.get("sentence") for one in events if one["event"] == "failed"] == [
        "the disk is full: take a larger one"
    ]
    assert told.engine.state == "failed"
    assert told.ask("retry")[-1]["state"] == "done"


def test_who_hears_that_it_is_done_may_switch_off_at_once():
    told = Told()
    asked, at_work = [], []
    switch_off = threading.Thread(target=told.engine.request, args=({"do": "power_off"},), daemon=True)
    told.engine._world = dataclasses.replace(told.engine._world, command=asked.append)
    told.engine._start = lambda work: at_work.append(threading.Thread(target=work, daemon=True))

    def hear(event):
        told.events.append(event)
        if event["event"] == "done":
            switch_off.start()
            switch_off.join(0.2)

    told.history = told.engine._history = History(hear)
    told.confirmed()
    for thread in at_work:
        thread.start()
        thread.join()
    switch_off.join()
    assert asked == ["power_off"]


def test_a_fault_of_our_own_is_a_sentence_and_the_log_has_the_rest():
    world = replay.world(installs.DESK, [])

    def broken(_context):
        raise RuntimeError(f"with {CANARY} in it")

    told = Told(world=dataclasses.replace(world, apply=broken))
    events = told.confirmed()
    assert "the installer itself failed (RuntimeError)" in events[-2]["sentence"]
    assert any("Traceback" in one.get("text", "") for one in events) and CANARY not in json.dumps(events)


def test_an_interrupted_install_is_offered_and_goes_on_with_its_secrets():
    answers = parse(Answers, ANSWERS, lambda _path: Place("answers"))
    told = Told(interrupted=answers)
    assert told.history.newest("resumable")["disk"] == "/dev/sda"
    (refused,) = told.ask("resume")
    assert "passphrase" in refused["faults"][0]
    told.ask("secret", name="passphrase", value=CANARY)
    assert told.ask("resume")[-1]["state"] == "done"


HASHED = "$6$salt$" + "x" * 86


def test_the_password_hash_that_no_journal_keeps_is_asked_for_again():
    answers = parse(Answers, {**ANSWERS, "user": {"password_hash": HASHED}}, lambda _path: Place("answers"))
    applied = []
    world = replay.world(installs.DESK, [], answers.forgetful())
    told = Told(world=dataclasses.replace(world, apply=applied.append))
    told.ask("secret", name="passphrase", value=CANARY)
    (refused,) = told.ask("resume")
    assert "password_hash" in refused["faults"][0] and not applied
    (refused,) = told.ask("secret", name="password_hash", value="hunter2")
    assert "no hash" in refused["faults"][0] and "hunter2" not in json.dumps(told.events) and not applied
    told.ask("secret", name="password_hash", value=HASHED)
    assert told.ask("resume")[-1]["state"] == "done"
    assert applied[0].answers == answers and HASHED not in json.dumps(told.events)


def test_a_machine_that_refuses_is_told_and_asked_again():
    """The connection of whoever asked ended without a word."""
    refuses = [True]

    def door():
        if refuses:
            refuses.clear()
            raise OSError(5, "Input/output error")
        return {"addresses": [], "fingerprint": "", "password": ""}

    told = Told(world=dataclasses.replace(replay.world(installs.DESK, []), door=door))
    (refused,) = told.ask("door")
    assert refused["event"] == "refused" and "Input/output error" in refused["faults"][0]
    assert told.ask("door")[0]["event"] == "door"


def test_an_abandoned_install_is_not_offered_again():
    told = Told(interrupted=parse(Answers, ANSWERS, lambda _path: Place("answers")))
    told.ask("abandon")
    assert told.history.newest("resumable") is None
    assert told.ask("resume")[0]["event"] == "refused"


def test_wrong_answers_are_refused_with_every_fault():
    (_state, refused) = Told().ask("answer", answers={"version": 1, "hostname": "Ä", "user": {"nam": "x"}})
    assert len(refused["faults"]) > 1 and any("hostname" in fault for fault in refused["faults"])


def test_a_disk_that_cannot_be_is_refused_with_reasons():
    told = Told()
    told.ask("answer", answers={**ANSWERS, "storage": {}})
    (refused,) = told.ask("plan")
    assert "2 disks could take the system" in refused["faults"][0]


def test_the_history_holds_the_newest_of_what_is_overtaken():
    told = Told()
    told.confirmed()
    kept = told.history.replay()
    assert [one["seq"] for one in kept] == sorted(one["seq"] for one in kept)
    assert sum(one["event"] == "state" for one in kept) == 1
    assert sum(one["event"] == "progress" for one in kept) == 1


def test_the_vocabulary_is_fixed():
    with pytest.raises(KeyError):
        event("state", states="done")
    with pytest.raises(KeyError):
        event("rumour")


def broken(told):
    """The medium turns out to be spoilt from here on."""
    told.engine._world = dataclasses.replace(
        told.engine._world, medium=lambda: {"record": {}, "verification": {"state": "broken", "said": []}}
    )


def test_from_a_broken_medium_nothing_is_installed():
    told = Told()
    plan = told.planned()
    broken(told)
    (refused,) = told.ask("confirm", digest=plan["digest"], typed=BLANK.model)
    assert "this medium is not as it was made" in refused["faults"][0] and told.engine.state == "planned"


def test_nor_gone_on_with():
    told = Told(interrupted=parse(Answers, ANSWERS, lambda _path: Place("answers")))
    broken(told)
    told.ask("secret", name="passphrase", value=CANARY)
    (refused,) = told.ask("resume")
    assert "this medium is not as it was made" in refused["faults"][0]


def test_an_install_stops_when_its_medium_turns_out_to_be_broken():
    told = Told()
    plan, done = told.planned(), []

    def apply(context):
        context.action("release", "started")
        broken(told)
        context.action("release", "done")
        done.append("more")

    told.engine._world = dataclasses.replace(told.engine._world, apply=apply)
    events = told.ask("confirm", digest=plan["digest"], typed=BLANK.model)
    assert "this medium is not as it was made" in next(e for e in events if e["event"] == "failed")["sentence"]
    assert done == []


def test_a_machine_that_is_looked_at_again_needs_a_new_plan():
    told = Told()
    plan = told.planned()
    told.engine._world = dataclasses.replace(
        told.engine._world, detect=lambda: installs.DESK.model_copy(update={"disks": []})
    )
    told.ask("detect")
    assert told.engine.state == "answering" and told.history.newest("plan") is None
    (refused,) = told.ask("confirm", digest=plan["digest"], typed=BLANK.model)
    assert "is not possible while" in refused["faults"][0]


def test_what_failed_is_given_up_and_the_machine_looked_at_anew():
    told = Told(recorded=[*installs.RECORDED, {"kind": "unpack", "fail": "no"}])
    told.confirmed()
    assert told.engine.state == "failed"
    given_up, looked = [], []
    mine = Found("/dev/sda", 3, 14, told.engine._answers, told.engine._plan, lambda: given_up.append("mine"))
    others = dataclasses.replace(mine, plan=Plan(actions=[]), abandon=lambda: given_up.append("others"))
    for found in (others, mine):
        told.engine.state = "failed"
        told.engine._world = dataclasses.replace(
            told.engine._world, found=lambda _machine, found=found: found,
            detect=lambda: looked.append(1) or installs.DESK,
        )  # fmt: skip
        told.engine._plan = mine.plan
        told.ask("abandon")
        assert told.engine.state == "answering"
    assert given_up == ["mine"] and len(looked) == 2


@pytest.mark.parametrize("do", ["confirm", "resume"])
def test_an_install_knows_whether_its_wipe_was_confirmed_just_now(do):
    told = Told(interrupted=parse(Answers, ANSWERS, lambda _path: Place("answers")))
    contexts = []
    told.engine._world = dataclasses.replace(told.engine._world, apply=contexts.append)
    plan = told.planned()
    if do == "resume":
        told.ask("answer", answers=ANSWERS)
    told.ask(do, digest=plan["digest"], typed=BLANK.model)
    assert [context.confirmed for context in contexts] == [do == "confirm"]


def test_of_two_installs_that_were_begun_the_second_is_offered_when_the_first_is_given_up():
    """Neither was offered, without a word."""
    made = replay.world(installs.DESK, [], parse(Answers, ANSWERS, lambda _path: Place("answers")))
    first = made.found(installs.DESK)
    left = [first, dataclasses.replace(first, disk="/dev/nvme0n1")]
    left[0] = dataclasses.replace(first, abandon=lambda: left.pop(0), notes=("an install onto /dev/nvme0n1 ...",))
    told = Told(world=dataclasses.replace(made, found=lambda _machine: left[0] if left else None))
    assert told.history.newest("resumable")["disk"] == "/dev/sda"
    assert told.history.newest("notice")["sentences"] == ["an install onto /dev/nvme0n1 ..."]
    told.ask("abandon")
    assert told.history.newest("resumable")["disk"] == "/dev/nvme0n1" and told.history.newest("notice") is None
    told.ask("secret", name="passphrase", value=CANARY)
    assert told.ask("resume")[-1]["state"] == "done"


def test_a_machine_that_cannot_be_looked_at_still_has_screens():
    def broken(_machine):
        raise ApplyFailed("lsblk failed (1)")

    told = Told(world=dataclasses.replace(replay.world(installs.DESK, []), found=broken))
    assert told.engine.state == "answering"
    assert told.history.newest("refused") is None
    said = "this machine could not be looked at in full: lsblk failed (1)"
    assert told.history.newest("notice")["sentences"] == [said]


def test_going_back_from_a_failure_gives_no_interrupted_install_up():
    """A typing error in the passphrase of an install that is resumed must not cost that install."""
    answers = parse(Answers, ANSWERS, lambda _path: Place("answers"))
    given_up = []
    world = replay.world(installs.DESK, [{"kind": "luks", "fail": "that passphrase does not open it"}], answers)
    found = dataclasses.replace(world.found(installs.DESK), abandon=lambda: given_up.append(1))
    told = Told(world=dataclasses.replace(world, found=lambda _machine: None if given_up else found))
    told.ask("secret", name="passphrase", value="a wrong one, typed")
    assert told.ask("resume")[-1]["state"] == "failed"
    told.ask("abandon")
    assert not given_up and told.history.newest("resumable")["disk"] == "/dev/sda"
    told.ask("secret", name="passphrase", value=CANARY)
    assert told.ask("resume")[-1]["state"] == "done"
    told = Told(world=dataclasses.replace(world, found=lambda _machine: None if given_up else found))
    told.ask("abandon")
    assert given_up and told.history.newest("resumable") is None


def test_an_engine_that_is_told_to_end_lets_its_clients_go_without_a_traceback(tmp_path):
    path = tmp_path / "install.sock"
    argv = [sys.executable, "-m", "kos_install.main", "--engine", "--socket", path, "--replay", "/dev/null"]
    argv += ["--hardware", MACHINES / "bios_pc.json"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as engine, socket.socket(socket.AF_UNIX) as client:
        until = time.monotonic() + 60
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.05)
        client.settimeout(60)
        client.connect(str(path))
        assert client.recv(1 << 16)
        engine.terminate()
        while client.recv(1 << 16):
            pass
        assert engine.wait(60) == 0 and engine.stderr.read() == b""


def recorded(name):
    """An engine of a rehearsal with a recording that is shipped, without its waiting."""
    rows = [{**row, "after": 0} for row in replay.recording(RECORDINGS / f"{name}.jsonl")]
    return Told(world=replay.world(describe.load(MACHINES / "windows11_laptop.json"), rows))


def test_the_recordings_that_are_shipped_play_to_their_ends():
    answers = {**ANSWERS, "storage": {"disk": {"serial": "S675NF0R"}}}
    for name, state in (("good", "done"), ("failing", "failed")):
        told = recorded(name)
        plan = told.planned(answers)
        told.ask("confirm", digest=plan["digest"], typed="S675NF0R")
        assert told.engine.state == state
    told.ask("retry")
    assert told.engine.state == "done", "what failed does so once"
    told = recorded("interrupted")
    assert told.history.newest("resumable")["disk"] == "/dev/nvme0n1"
    told.ask("secret", name="passphrase", value=CANARY)
    told.ask("resume")
    assert told.engine.state == "done"
