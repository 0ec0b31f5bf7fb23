# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every word a person reads has a German text with the same values in it, and none on a screen is unmarked."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import installs
import polib
import pytest
import sentences

from ansible_collections.kind.kos.plugins.plugin_utils.faults import Fault, Place
from kos_install.hardware import describe
from kos_install.screens import said, words
from kos_install.screens.model import Session
from kos_install.screens.pages import disk, services

GERMAN = {entry.msgid: entry for entry in polib.pofile(str(words.FOLDER / "de.po"))}
MARKED, CORE = sentences.marked(), {**sentences.core(), **sentences.summaries()}
# Called with a text to show, at these places of the arguments.
SHOWN = {"Static": 0, "Line": 0, "Content": 0, "Reading": 0, "Ask": 0, "say": 0, "notify": 0}


@pytest.mark.parametrize("text", [*MARKED, *CORE])
def test_every_text_has_a_german_one_with_the_same_values(text):
    assert text in GERMAN, "add it to locale/de.po"
    entry = GERMAN[text]
    assert entry.msgstr and "fuzzy" not in entry.flags
    assert len(re.findall(r"{\w*}", text)) == len(re.findall(r"{\w*}", entry.msgstr))
    assert {*re.findall(r"{([a-z]+)}", text)} == {*re.findall(r"{([a-z]+)}", entry.msgstr)}


def test_no_german_text_is_left_over():
    generic = {"cpu", "memory", "disk", "gpu", "network", "{} cores", "a GPU"}
    ours = {text for text, entry in GERMAN.items() if entry.comment != "storage/picture.py"}
    assert ours - {*MARKED, *CORE} - generic == set()


def literals():
    """Texts that are shown without a mark: (file, line, text)."""
    for path in sorted((sentences.INSTALLER / "screens").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in SHOWN and len(node.args) > SHOWN[name]:
                keys = {id(key) for key in _keys(node)}
                for part in ast.walk(node.args[SHOWN[name]]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) not in keys:
                        yield path.name, part.lineno, part.value, node


def _keys(node):
    """What a value is looked up by."""
    for part in ast.walk(node):
        if isinstance(part, ast.Subscript):
            yield part.slice
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr == "get":
            yield part.args[0]


def test_no_screen_holds_a_text_that_is_not_marked():
    found = []
    for name, line, text, call in literals():
        inside = {
            id(part)
            for node in ast.walk(call)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"
            for part in ast.walk(node)
            if isinstance(part, ast.Constant)
        }
        constants = [part for part in ast.walk(call) if isinstance(part, ast.Constant) and part.value == text]
        if re.search(r"[A-Za-z]{3}", text) and not all(id(part) in inside for part in constants):
            found.append(f"{name}:{line}: {text}")
    assert found == []


@pytest.fixture
def german():
    words.use("de")
    yield
    words.use("en")


def test_sentences_of_the_core_are_translated_with_their_values(german):
    assert said.said("too small: 8 GB needed") == "zu klein: 8 GB nötig"
    gap = "storage.layout: free_space needs a gap of {} on {}, and its largest is {}"
    (whole,) = (text for text in CORE if text.startswith(gap))
    german_gap = said.said(whole.format("9 GB", "/dev/sda", "1 GB"))
    assert german_gap.startswith("storage.layout: free_space braucht eine Lücke von 9 GB auf /dev/sda")
    assert said.said("something nobody has translated") == "something nobody has translated"


def test_a_fault_of_the_resolver_is_german_around_its_place_its_key_and_its_fix(german):
    plain = Fault(
        "this release's catalogue has no service 'qdrnt'", None, "services.vector_db", "did you mean 'qdrant'?"
    )
    placed = Fault("a node has one gateway, and these are caddy and envoy", Place("answers"), "services.gateway")
    assert said.said(str(plain)) == (
        "services.vector_db: der Katalog dieser Ausgabe hat keinen Dienst 'qdrnt' (meinten Sie 'qdrant'?)"
    )
    assert said.said(str(placed)) == (
        "answers: services.gateway: ein Rechner hat ein Gateway, und dies sind caddy and envoy"
    )
    ports = "tcp port 8080 is wanted by envoy (admin) and open_webui (web), asked for in a.yaml:3 and b.yaml:4"
    assert said.said(str(Fault(ports, Place("b.yaml", 4), fix="ask for one of them only"))) == (
        "b.yaml:4: den Port 8080 (tcp) wollen envoy (admin) und open_webui (web), verlangt in a.yaml:3 and b.yaml:4"
        " (verlangen Sie nur einen davon)"
    )


def test_what_the_resolver_refuses_is_german_on_the_page_of_the_services(german):
    """The whole way: what the resolver says of answers that a person gave here."""
    session = Session(machine=installs.DESK)
    session.draft.put("settings.services", {"vector_db": "qdrnt"})
    assert services.page(session).aside(session) == (
        "answers: settings.services.vector_db: der Katalog dieser Ausgabe hat keinen Dienst 'qdrnt'"
        " (meinten Sie 'qdrant'?)"
    )


def test_the_picture_keeps_its_columns(german):
    english = (
        "  before                               |   after\n"
        "     (nothing)                    2 TB |   +1 kos-esp: boot files        1.1 GB\n"
        "/dev/sdc (Flash, 4 GB, serial 77) stays as is\n"
    )
    german_text = said.picture(english)
    assert "vorher" in german_text and "Startdateien" in german_text and "bleibt, wie sie ist" in german_text
    assert [line.find("|") for line in german_text.splitlines()] == [39, 39, -1]


def test_the_picture_of_a_windows_disk_is_german_to_its_last_line(german):
    english = (
        "/dev/sda (Samsung, 2 TB, serial S-1)\n"
        "   2 reserved by Windows       16.8 MB |   +2 kos-journal: resuming        1 MB\n"
        "     free                       230 GB |\n"
        "   4 recovery of Windows        734 MB |\n"
        "/dev/sdb (Flash, 4 GB, no serial number) stays as is\n"
    )
    assert said.picture(english).splitlines() == [
        "/dev/sda (Samsung, 2 TB, Nr. S-1)",
        "   2 für Windows reserviert    16.8 MB |   +2 kos-journal: Fortsetzen      1 MB",
        "     frei                       230 GB |",
        "   4 Rettung von Windows        734 MB |",
        "/dev/sdb (Flash, 4 GB, keine Seriennummer) bleibt, wie sie ist",
    ]
    laptop = describe.load(Path(__file__).parent / "machines" / "windows11_laptop.json")
    assert "für Windows reserviert, " in disk.choices(laptop, 0)[0].label


def test_english_is_its_own_translation():
    assert words._("Disk") == "Disk" and said.said("too small: 8 GB needed") == "too small: 8 GB needed"
    words.use("fr")
    assert words.language() == "en"
