# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The screens of lines: the same answers as those that are drawn, for a terminal that can do nothing else."""

from __future__ import annotations

import asyncio
import queue

import installs
import pytest
import screenshots
from installs import CANARY, KEY, RECOVERY, Told

from ansible_collections.kind.kos.plugins.plugin_utils.faults import Place
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse
from kos_install.answers import Answers
from kos_install.screens import lists, plain, prompts, words


class Client:
    """An engine in this process, whose work is done before it answers."""

    def __init__(self, told):
        self._told, self._lines, self.asked = told, queue.Queue(), []
        for event in told.history.replay():
            self._lines.put(event)

    def send(self, do, **fields):
        self.asked.append(do)
        for event in self._told.ask(do, **fields):
            self._lines.put(event)

    def events(self):
        while True:
            yield self._lines.get()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def person(monkeypatch, capsys):
    """Somebody who types these lines, and what they were shown."""

    def types(told, *lines):
        left = list(lines)
        words.use("en")
        monkeypatch.setattr(lists, "keyboards", lambda: {"us": "English (US)", "de": "Deutsch"})
        monkeypatch.setattr(lists, "locales", lambda: ("C.UTF-8", "de_DE.UTF-8"))

        def line(label=""):
            if not left:
                raise AssertionError(f"nothing left to type at: {label}\n{capsys.readouterr().out[-2000:]}")
            said, text = left.pop(0)
            assert said in label, f"{said!r} expected at {label!r}\n{capsys.readouterr().out[-1500:]}"
            return text

        monkeypatch.setattr("builtins.input", line)
        monkeypatch.setattr(prompts.getpass, "getpass", line)
        client = Client(told)
        plain.run(lambda: client, local=True)
        assert not left
        return client, capsys.readouterr().out

    yield types
    words.use("en")


WELCOME = [("number", ""), ("number", "")]
ANSWERED = [
    *WELCOME,
    ("number", ""),  # profile
    ("number", ""),  # layout
    ("number", "2"),  # disk
    ("number", ""),  # data
    ("Passphrase", CANARY),
    ("Once more", CANARY),
    ("Keyboard test", ""),
    ("Recovery key", ""),
    ("TPM 2", ""),
    ("Tang", ""),
    ("Unlock over SSH", ""),
    ("number", ""),  # Secure Boot
    ("number", ""),  # network
    ("number", ""),  # card
    ("VLAN", ""),
    ("User name", ""),
    ("Full name", ""),
    ("Password", ""),
    ("Once more", ""),
    ("  ", KEY),
    ("  ", ""),
    ("look for keys", ""),
    ("Host name", ""),
    ("Time zone", "Europe/Berlin"),
    ("number", ""),  # locale
    ("number", ""),  # keyboard
    ("numbers", ""),  # services
]
TYPED = [("type its name", "wdc wd20efrx"), ("written down", ""), ("1-3", "3")]


def test_line_by_line_gives_the_same_answers_as_the_screens(person):
    """Complaint 13: its reporter is blind, and a screen reader reads lines."""
    told, drawn = Told(), Told([*installs.RECORDED, {"kind": "converge", "fail": "the disk is full"}])
    _client, shown = person(told, *ANSWERED, *TYPED)
    asyncio.run(screenshots.walk("en", drawn))
    mine, theirs = (one.history.newest("draft")["answers"] for one in (told, drawn))
    assert mine == theirs and mine["storage"] == {"disk": {"serial": "WD-1"}}
    assert told.engine.state == "done" and RECOVERY in shown and CANARY not in shown


def test_help_back_and_faults(person):
    _client, shown = person(
        Told(),
        ("number", "?"),
        *WELCOME,
        ("number", ""),  # profile
        ("number", "<"),  # back from the disk
        ("number", ""),  # profile
        *ANSWERED[3:6],
        ("Passphrase", "secret"),
        ("Passphrase", CANARY),
        ("Once more", "other"),
        ("Once more", CANARY),
        *ANSWERED[8:],
        ("type its name", "sda"),
        *TYPED,
    )
    for said in ("Choose the language", "too easy to guess", "not the same as above", "type what it is called"):
        assert said in shown


def test_a_failure_is_tried_again(person):
    told = Told([{"kind": "converge", "fail": "the disk is full: take a larger one"}])
    client, shown = person(told, *ANSWERED, TYPED[0], ("1-4", "4"), ("1-4", "1"), ("1-3", "2"))
    assert "! the disk is full" in shown and client.asked[-2:] == ["retry", "power_off"]


def test_an_interrupted_install_is_resumed(person):
    answers = parse(Answers, installs.ANSWERS, lambda _path: Place("answers"))
    told = Told(interrupted=answers)
    _client, shown = person(told, ("1-2", "1"), ("Passphrase", CANARY), *TYPED[1:])
    assert "An install onto /dev/sda was interrupted" in shown and told.engine.state == "done"


def test_starting_over_has_to_be_typed(person):
    told = Told(interrupted=parse(Answers, installs.ANSWERS, lambda _path: Place("answers")))
    _client, _shown = person(told, ("1-2", "2"), ("start over", "start over"), *ANSWERED, *TYPED)
    assert told.engine.state == "done"


def test_giving_up_what_failed_has_to_be_typed_too(person):
    told = Told([{"kind": "converge", "fail": "the disk is full: take a larger one"}])
    client, _shown = person(told, *ANSWERED, TYPED[0], ("1-4", "3"), ("start over", "no"), ("1-4", "1"), ("1-3", "2"))
    assert "abandon" not in client.asked and told.engine.state == "done"


def test_lines_break_between_words_and_the_menu_leads_back(person, tmp_path):
    there = tmp_path / "answers.yaml"
    there.write_text("mine\n")
    _client, shown = person(
        Told(),
        ("number", "!"),
        ("1-", "<"),
        ("number", "!"),
        ("1-", "7"),
        ("File [/root/answers.yaml]", str(there)),
        (f"File [{tmp_path}/answers-2.yaml]", ""),
        *ANSWERED,
        *TYPED,
    )
    # A path is never broken, and this one is as long as pytest makes it.
    lines = [line for line in shown.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 79 and "saved:" in shown
    assert there.read_text() == "mine\n" and "profile: personal_node" in (tmp_path / "answers-2.yaml").read_text()


def test_what_is_asked_next_is_in_the_language_that_was_just_chosen(person):
    with pytest.raises(AssertionError, match="nothing left to type") as stopped:
        person(Told(), ("number", "2"))
    shown = str(stopped.value)
    assert "Tastatur:" in shown and "Keyboard:" not in shown and "PROBE: nichts wird installiert" not in shown
