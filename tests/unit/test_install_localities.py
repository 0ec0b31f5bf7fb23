# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What answers name is what the system has: keyboards by XKB's names, locales, time zones. Nothing else is planned."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kos_install import keyboards, localities
from kos_install.answers import Answers

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP nobody"
RULES = """\
! model
  pc105           Generic 105-key PC

! layout
  us              English (US)
  de              German
  custom          A user-defined custom Layout

! variant
  nodeadkeys      de: German (no dead keys)
  ru              de: Russian (Germany, phonetic)

! option
  grp                  Switching to another layout
"""
SUPPORTED = "de_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\nca_ES@valencia UTF-8\naa_ER UTF-8\n"
LATIN = "".join(f"keycode {16 + place} = +U+{code:04x} Control_x\n" for place, code in enumerate(range(0x61, 0x7B)))


def answers(**more):
    return Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}, **more})


@pytest.fixture
def system(tmp_path):
    """A system with two keyboards, three locales and two time zones."""
    for name, content in {
        "zoneinfo/UTC": "TZif2", "zoneinfo/Europe/Berlin": "TZif2", "zoneinfo/leapseconds": "# text",
        "X11/xkb/rules/base.lst": RULES, "i18n/SUPPORTED": SUPPORTED,
    }.items():  # fmt: skip
        path = tmp_path / "usr/share" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    "given",
    [
        {}, {"locale": "de_DE.UTF-8", "timezone": "Europe/Berlin", "keyboard": "de(nodeadkeys)"},
        {"locale": "ca_ES.UTF-8@valencia"}, {"locale": "aa_ER.UTF-8"}, {"locale": "POSIX"},
    ],
)  # fmt: skip
def test_what_the_system_has_is_taken(system, given):
    assert list(localities.unknown(answers(**given), "answers", system, lambda _name: True)) == []


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ({"timezone": "Europe/Berlni"}, "Europe/Berlin"),
        ({"timezone": "Europe"}, ""),
        ({"timezone": "leapseconds"}, ""),
        ({"locale": "de_DF.UTF-8"}, "de_DE"),
        ({"keyboard": "dee"}, "de"),
        ({"keyboard": "de(nodeadkey)"}, "nodeadkeys"),
        ({"keyboard": "custom"}, ""),
    ],
)
def test_what_it_has_not_is_said_before_anything_is_wiped(system, given, near):
    (fault,) = localities.unknown(answers(**given), "answers", system, lambda _name: True)
    assert fault.key in given and near in str(fault)


def test_a_locale_of_another_country_speaks_the_same_language(system):
    (system / "usr/share/i18n/SUPPORTED").write_text("es_MX.UTF-8 UTF-8\nde_DE.UTF-8 UTF-8\nde_AT.UTF-8 UTF-8\n")
    (fault,) = localities.unknown(answers(locale="de_XX.UTF-8"), "answers", system, lambda _name: True)
    assert fault.fix in ("did you mean 'de_AT.UTF-8'?", "did you mean 'de_DE.UTF-8'?")


def test_of_a_long_list_one_is_told_where_to_see_it(system):
    """The first forty of some hundred are no help."""
    rows = "".join(f"  a{first}{second}  Layout\n" for first in "abcdefghij" for second in "abcdefghij")
    (system / "usr/share/X11/xkb/rules/base.lst").write_text(f"! layout\n{rows}")
    (fault,) = localities.unknown(answers(keyboard="xx"), "answers", system, lambda _name: True)
    assert "list-x11-keymap-layouts" in fault.fix and "aaa" not in fault.fix


@pytest.mark.parametrize("console", ["de-latin1", "uk(", "us;reboot", "de nodeadkeys", 'de"'])
def test_a_keyboard_is_called_as_xkb_calls_it(console):
    with pytest.raises(ValidationError, match="keyboard"):
        answers(keyboard=console)


def test_a_keyboard_without_latin_letters_is_refused(system):
    (fault,) = localities.unknown(answers(keyboard="de(ru)"), "answers", system, lambda _name: False)
    assert fault.key == "keyboard" and "Latin" in str(fault)
    said = []
    assert keyboards.types_latin("de(ru)", lambda argv: said.append(argv) or LATIN)
    assert said == [["ckbcomp", "-model", "pc105", "de", "ru", ""]]
    assert not keyboards.types_latin("de(ru)", lambda _argv: LATIN.replace("U+0071", "U+044f"))
    assert not keyboards.types_latin("xx", lambda _argv: "")


def test_the_console_gets_what_the_node_will_get(tmp_path):
    for name in (keyboards.SETTINGS, keyboards.KEYMAP):
        (tmp_path / name.lstrip("/")).parent.mkdir(parents=True)
    keymap = tmp_path / keyboards.KEYMAP.lstrip("/")
    keymap.write_bytes(b"of another keyboard, and from the future")
    said = []
    keyboards.use("ch(fr)", lambda argv: said.append((argv, keymap.exists())) or "", tmp_path)
    assert said == [(["setupcon", "--keyboard-only", "--force"], False)]
    assert (tmp_path / keyboards.SETTINGS.lstrip("/")).read_text() == keyboards.settings("ch(fr)")
    assert 'XKBLAYOUT="ch"\nXKBVARIANT="fr"\nXKBOPTIONS=""' in keyboards.settings("ch(fr)")


def test_another_system_is_asked_only_for_what_it_has_a_list_of(system, tmp_path):
    wrong = answers(timezone="Europe/Berlni", locale="de_DF.UTF-8", keyboard="dee")
    assert [fault.key for fault in localities.doubtful(wrong, "a", system)] == ["timezone", "locale", "keyboard"]
    assert list(localities.doubtful(answers(keyboard="de(ru)"), "a", system)) == []
    assert list(localities.doubtful(wrong, "a", tmp_path / "nothing")) == []
    (system / "usr/share/X11/xkb/rules/base.lst").unlink()
    assert [fault.key for fault in localities.doubtful(wrong, "a", system)] == ["timezone", "locale"]
