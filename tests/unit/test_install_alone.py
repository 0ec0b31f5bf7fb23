# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An install that nobody watches: where answers come from, that a serial number names a disk, how it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import socket
import sys
import threading
import time
from pathlib import Path

import installs
import pytest
from installs import ANSWERS, BLANK, CANARY, DESK, RECORDED, RECOVERY

from ansible_collections.kind.kos.cli.exits import Exit
from kos_install import alone, main, unattended
from kos_install.answers import Answers
from kos_install.engine import replay
from kos_install.engine.client import Socket
from kos_install.errors import ApplyFailed, Unplannable, UsageError
from kos_install.storage.refusals import unattended as unattended_faults
from kos_install.unattended import Looked

SECRETS = {"passphrase": CANARY}


def answers(**more):
    given = {**ANSWERS, "encryption": {"passphrase": {"credential": "kos.passphrase"}}, "confirm": {"wipe": ["WD-1"]}}
    return Answers.model_validate({**given, **more})


class Told:
    """An install of the described machine, and all that was told."""

    def __init__(self, asked, recorded=RECORDED, interrupted=None):
        self.events, self.commands = [], []
        self._world = dataclasses.replace(replay.world(DESK, list(recorded), interrupted), command=self.commands.append)
        self._asked = asked

    def run(self):
        return alone._own_engine(self._asked, SECRETS, self.events.append, self._world)

    @property
    def names(self):
        return {event["event"] for event in self.events}


def test_it_installs_what_the_answers_confirm_and_switches_off():
    told = Told(answers(after="power_off"))
    assert told.run() == Exit.OK
    assert told.events[-1]["state"] == "done" and told.commands == ["power_off"]
    kinds = [event["kind"] for event in told.events if event["event"] == "action" and event["state"] == "done"]
    assert kinds[0] == "release" and kinds[-1] == "finish"


def test_a_power_off_is_not_lost_with_the_connection_that_asked_for_it(tmp_path):
    path, heard = tmp_path / "socket", []

    def engine(listener):
        connection, _address = listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b'{"event": "state", "state": "answering"}\n')
            while json.loads(lines.readline())["do"] != "plan":
                pass
            connection.sendall(
                b'{"event": "done", "hostname": "kos", "addresses": [], "fingerprint": "", "next": []}\n'
            )
            time.sleep(0.3)  # a busy machine
            with contextlib.suppress(BrokenPipeError):
                # asyncio gives up a connection that it cannot write to, and what was not read of it.
                connection.sendall(b'{"event": "state", "state": "done"}\n')
                heard.append(json.loads(lines.readline())["do"])

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=engine, args=(listener,))
        thread.start()
        with Socket(path, timeout=20) as client:
            assert alone.follow(client.send, client.events(), answers(after="power_off"), SECRETS, print) == Exit.OK
        thread.join()
    assert heard == ["power_off"]


def test_without_being_told_it_waits():
    told = Told(answers())
    assert told.run() == Exit.OK and told.commands == []


@pytest.mark.parametrize("confirmed", [[], ["WDC WD20EFRX"], ["S5GXNX0T"], ["wd-1"]])
def test_a_disk_whose_serial_number_is_not_named_is_never_wiped(confirmed):
    told = Told(answers(confirm={"wipe": confirmed}))
    with pytest.raises(Unplannable, match=r"confirm\.wipe .*WD-1"):
        told.run()
    assert not [event for event in told.events if event["event"] == "action"]


def test_a_machine_that_does_not_fit_is_refused():
    told = Told(answers(storage={"disk": {"serial": "nowhere"}}))
    assert told.run() == Exit.PREFLIGHT_FAILED
    assert "refused" in told.names and "action" not in told.names


def test_a_failure_is_the_exit_code_and_switches_nothing_off():
    told = Told(answers(after="power_off"), [*RECORDED, {"kind": "unpack", "fail": "the stick was pulled out"}])
    assert told.run() == Exit.NOT_REVERTED and told.commands == []
    assert next(event for event in told.events if event["event"] == "failed")["sentence"] == "the stick was pulled out"


def test_an_install_by_the_same_answers_that_was_interrupted_goes_on():
    asked = answers()
    typed = Answers.model_validate(alone.as_typed(asked))
    told = Told(asked, interrupted=typed)
    assert told.run() == Exit.OK
    assert "resumable" in told.names


def test_one_whose_journal_forgot_the_password_goes_on_with_it():
    asked = answers(user={"password_hash": "$6$salt$" + "x" * 86})
    told = Told(asked, interrupted=Answers.model_validate(alone.as_typed(asked)).forgetful())
    assert told.run() == Exit.OK
    assert "resumable" in told.names and "draft" not in told.names


def test_a_bad_disk_elsewhere_does_not_end_it():
    asked = answers()

    def bad(_machine):
        raise ApplyFailed("whether an install was begun in /dev/sdb2 cannot be read (Input/output error)")

    told = Told(asked)
    told._world = dataclasses.replace(told._world, found=bad)
    assert told.run() == Exit.OK and "notice" in told.names


def test_one_of_other_answers_does_not_stand_in_the_way():
    told = Told(answers(), interrupted=Answers.model_validate({**ANSWERS, "hostname": "other"}))
    assert told.run() == Exit.OK


@pytest.mark.parametrize("left", ["planned", "failed", "refused"])
def test_what_another_client_left_half_way_is_answered_anew(left):
    """A door that did not open at the first try was taken for a refusal of these answers."""
    told, lines = installs.Told([{"kind": "unpack", "fail": "the stick was pulled out"}]), queue.Queue()
    {"planned": told.planned, "failed": told.confirmed, "refused": lambda: told.ask("format")}[left]()
    assert told.engine.state == left or told.events[-1]["event"] == left
    for event in told.history.replay():
        lines.put(event)

    def send(do, **fields):
        for event in told.ask(do, **fields):
            lines.put(event)

    seen = []
    # What is planned fails here too, once.
    expected = Exit.OK if left == "failed" else Exit.NOT_REVERTED
    assert alone.follow(send, iter(lines.get, None), answers(), SECRETS, seen.append) == expected


def test_what_somebody_else_is_refused_meanwhile_ends_nothing():
    told = [
        *({"event": "state", "state": state} for state in ("answering", "planned", "applying")),
        {"event": "refused", "faults": ["reboot is not possible while the installer is applying"]},
        {"event": "done", "hostname": "kos", "addresses": [], "fingerprint": "", "next": []},
    ]
    assert alone.follow(lambda *_, **__: None, told, answers(), SECRETS, lambda _event: None) == Exit.OK


@pytest.mark.parametrize(("state", "said"), [("applying", "at work"), ("verifying", "at work"), ("done", "just ended")])
def test_another_install_is_neither_joined_nor_waited_for(state, said):
    with pytest.raises(UsageError, match=said):
        alone.follow(pytest.fail, [{"event": "state", "state": state}], answers(), SECRETS, lambda _event: None)


def test_secrets_are_typed_and_never_told(capsys):
    asked = answers(network=[{"wifi": {"ssid": "a.b[0]", "passphrase": {"file": "wifi"}}}])
    typed = alone.as_typed(asked)
    assert typed["encryption"]["passphrase"] == {"credential": None, "file": None, "prompt": True}
    assert typed["network"][0]["wifi"]["passphrase"]["prompt"]
    told = Told(answers())
    told.run()
    for event in told.events:
        alone.as_json(event)
        alone.as_text(event)
    said = capsys.readouterr().out
    assert CANARY not in said and RECOVERY not in said
    rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)
    assert "[14/14] finish: done" in said


def test_no_log_gets_the_password_of_the_door_or_the_hash_of_one(capsys):
    hashed = "$6$salt$" + "x" * 86
    door = {"event": "door", "addresses": [], "fingerprint": "SHA256:f", "password": CANARY, "seq": 1}
    draft = {"event": "draft", "answers": {"user": {"name": "anna", "password_hash": hashed}}, "seq": 2}
    for event in (door, draft, {**draft, "event": "resumable", "disk": "/dev/sda", "seq": 3}):
        alone.as_json(event)
        alone.as_text(event)
    said = capsys.readouterr().out
    assert CANARY not in said and hashed not in said and said.count("anna") == 2


@pytest.mark.parametrize(
    ("looked", "found"),
    [
        (Looked("quiet", None, ()), None),
        (Looked("quiet", None, ("/dev/vdb",)), "/dev/vdb"),
        (Looked("quiet", Path("/c"), ("/dev/vdb",)), Path("/c")),
        (Looked("kos.answers=LABEL=MINE", Path("/c"), ("/dev/vdb",)), "LABEL=MINE"),
        (Looked("kos.answers=off", Path("/c"), ("/dev/vdb", "/dev/vdc")), None),
    ],
)
def test_answers_are_looked_for_where_the_nearest_said(looked, found):
    assert unattended.source(looked) == found


def test_two_partitions_with_answers_are_one_too_many():
    with pytest.raises(UsageError, match=r"/dev/vdb and /dev/vdc are both labelled KOS-ANSWERS"):
        unattended.source(Looked("", None, ("/dev/vdb", "/dev/vdc")))


def test_what_is_no_partition_is_not_mounted(tmp_path):
    (tmp_path / "answers.yaml").write_text("version: 1\n")
    with pytest.raises(UsageError, match="is no partition here"), unattended.found(str(tmp_path)):
        pass


def test_a_file_of_answers_and_what_is_beside_it(tmp_path):
    path = tmp_path / "answers.yaml"
    path.write_text(answers(encryption={"passphrase": {"file": "secret"}}).model_dump_json(exclude_none=True))
    (tmp_path / "secret").write_text(f"{CANARY}\n")
    asked, secrets = unattended.answer(path)
    assert asked.hostname == "kos" and secrets == SECRETS


def installed(asked):
    """The described machine, after an install by these answers."""
    disks = [disk.model_copy(update={"installed": asked.digest()}) if disk is BLANK else disk for disk in DESK.disks]
    return DESK.model_copy(update={"disks": disks})


def test_a_stick_that_was_left_in_does_not_install_again():
    asked = answers()
    assert unattended_faults(asked, DESK, [BLANK.path]) == []
    (fault,) = unattended_faults(asked, installed(asked), [BLANK.path])
    assert "these very answers have installed" in fault and "confirm.again: true" in fault
    assert unattended_faults(answers(hostname="other"), installed(asked), [BLANK.path]) == []
    again = answers(confirm={"wipe": ["WD-1"], "again": True})
    assert unattended_faults(again, installed(asked), [BLANK.path]) == []
    told = Told(asked)
    told._world = dataclasses.replace(told._world, detect=lambda: installed(asked))
    with pytest.raises(Unplannable, match="these very answers"):
        told.run()
    assert "action" not in told.names


def test_a_recovery_key_is_not_made_where_nobody_writes_it_down():
    told = Told(answers())
    assert told.run() == Exit.OK
    plan = next(event for event in told.events if event["event"] == "plan")["plan"]
    assert [one["recovery_key"] for one in plan["actions"] if one["kind"] == "luks"] == [False]
    asked = answers(encryption={"passphrase": {"credential": "x"}, "recovery_key": True})
    assert "nobody is there to write it down" in unattended_faults(asked, DESK, [])[0]


def test_neither_is_a_key_touched():
    asked = answers(encryption={"passphrase": {"credential": "x"}, "fido2": True})
    assert "nobody is there to touch the key" in unattended_faults(asked, DESK, [])[0]


@pytest.fixture
def by_hand(tmp_path, monkeypatch):
    """`kos-install --answers FILE` at a terminal, or not; what is typed is in the list."""
    asked = answers(encryption={"passphrase": {"prompt": True}}).model_dump(mode="json", exclude_unset=True)
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(asked))

    def call(typed, terminal=True):
        given, rows = iter(typed), []
        monkeypatch.setattr(alone.sys.stdin, "isatty", lambda: terminal, raising=False)
        monkeypatch.setattr(alone.getpass, "getpass", lambda _label: next(given))
        monkeypatch.setattr(alone, "install", lambda *args: rows.append(args) or 0)
        assert alone.main(path, lines=False) == 0
        return rows[0]

    return call


def test_who_starts_it_by_hand_types_what_the_answers_leave_open(by_hand, capsys):
    asked, secrets, *_rest = by_hand([CANARY, "another", CANARY, CANARY])
    assert asked.encryption.passphrase.prompt and secrets == {"passphrase": CANARY}
    printed = capsys.readouterr()
    assert "type it again" in printed.err and CANARY not in printed.out + printed.err


def test_what_was_typed_by_hand_is_no_reason_to_refuse_the_plan(by_hand):
    asked, secrets, *_rest = by_hand([CANARY, CANARY])
    told = Told(asked)
    assert secrets == SECRETS and told.run() == Exit.OK and "refused" not in told.names


@pytest.mark.parametrize(
    ("typed", "terminal", "said"), [([], False, "at a terminal"), (["123", "123"], True, "shorter")]
)
def test_what_nobody_can_type_or_is_too_weak_is_a_sentence(by_hand, typed, terminal, said):
    with pytest.raises(Unplannable, match=rf"encryption\.passphrase: .*{said}"):
        by_hand(typed, terminal)


def test_answers_for_a_remote_machine_install_that_one_and_never_this(tmp_path, monkeypatch):
    path = tmp_path / "answers.yaml"
    path.write_text(answers(encryption={"passphrase": {"file": "secret"}}).model_dump_json(exclude_none=True))
    (tmp_path / "secret").write_text(CANARY)
    asked, log = [], tmp_path / "requests"
    script = (
        "import json,sys\n"
        "print(json.dumps({'event': 'state', 'state': 'answering', 'seq': 1}), flush=True)\n"
        f"log = open({str(log)!r}, 'w')\n"
        "for line in sys.stdin:\n"
        "    log.write(line); log.flush()\n"
        "    if json.loads(line)['do'] == 'plan':\n"
        "        print(json.dumps({'event': 'refused', 'faults': ['no disk'], 'seq': 2}), flush=True)\n"
    )

    @contextlib.contextmanager
    def pinned(host, fingerprint):
        asked.append((host, fingerprint))
        yield [sys.executable, "-c", script]

    monkeypatch.setattr(alone.reaching, "pinned", pinned)
    monkeypatch.setattr(alone, "install", lambda *_: pytest.fail("this machine would be installed"))
    monkeypatch.setattr(
        sys, "argv", ["kos-install", "--remote", "root@rack", "--fingerprint", "F", "--answers", str(path)]
    )
    assert main.main() == Exit.PREFLIGHT_FAILED
    assert asked == [("root@rack", "F")]
    assert [json.loads(line)["do"] for line in log.read_text().splitlines()] == ["answer", "secret", "plan"]


def test_a_remote_machine_is_not_asked_for_answers_that_were_left_here(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kos-install", "--remote", "root@rack", "--unattended"])
    with pytest.raises(SystemExit):
        main.main()
    assert "--remote takes answers from here" in capsys.readouterr().err
