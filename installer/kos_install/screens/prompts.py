# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions on a terminal that knows lines alone."""

from __future__ import annotations

import getpass
import textwrap
from collections.abc import Sequence
from typing import Any

from .model import Option, Question
from .words import _

FORWARD, BACK = 1, -1
WIDTH = 79
_LONG = 12  # options, from where on a list is searched rather than shown


class Back(Exception):
    """To the page before."""


class Help(Exception):
    """What this page is about."""


class Tools(Exception):
    """A shell, the network, the way out."""


def say(text: str) -> None:
    """Some lines, if there are any; what is longer than a line of 80 columns goes on below, between words."""
    if text:
        print("\n".join(map(_wrapped, text.split("\n"))), flush=True)


def _wrapped(text: str) -> str:
    indent = " " * (len(text) - len(text.lstrip()))
    if len(text) <= WIDTH:
        return text
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _input(label: str) -> str:
    """A long question stands above its last sentence, behind which one types."""
    above, stop, last = label.rpartition(". ") if len(label) > WIDTH else ("", "", label)
    say(above + stop.rstrip())
    return input(last)


def line(label: str, default: str = "") -> str:
    """One line. Raises Back, Help, Tools for <, ? and !."""
    given = _input(f"{label} [{default}]: " if default else f"{label}: ").strip()
    marks: dict[str, type[Exception]] = {"<": Back, "?": Help, "!": Tools}
    if given in marks:
        raise marks[given]
    return given or default


def wait(text: str) -> None:
    """Until Enter."""
    _input(f"{text} ")


def secret(label: str) -> str:
    """A line that nobody sees."""
    return getpass.getpass(f"{label}: ")


def choose(labels: Sequence[str], back: bool = False) -> int:
    """The place of one of some; `back`: the last of them leads back, and so does <."""
    for number, label in enumerate(labels, 1):
        say(f"  {number} {label}")
    while True:
        given = input(f"1-{len(labels)}: ").strip()
        if back and given == "<":
            return len(labels) - 1
        if given.isdecimal() and 1 <= int(given) <= len(labels):
            return int(given) - 1


def ask(question: Question, value: Any) -> Any:
    """The answer to a question; Enter leaves it as it is. Raises Back, Help, Tools."""
    if question.kind == "secret":
        return _secret(question, value)
    if question.kind == "switch":
        return _switch(question, bool(value))
    if question.kind == "lines":
        return _lines(question, value)
    if question.kind == "many":
        return _many(question, list(value))
    if question.kind in {"choice", "pick"}:
        return _one(question, value)
    given = line(question.label, value)
    return "" if given == "-" else given


def _secret(question: Question, value: Any) -> str:
    before = value[0] if isinstance(value, tuple) else value
    given = secret(f"{question.label} [{_('Enter leaves it as it is')}]" if before else question.label)
    marks: dict[str, type[Exception]] = {"<": Back, "?": Help, "!": Tools}
    if given in marks:
        raise marks[given]
    return given or before


def _switch(question: Question, value: bool) -> bool:
    given = line(f"{question.label} ({_('y')}/{_('n')})", _("y") if value else _("n"))
    return given.casefold() in {"y", "yes", _("y")}


def _lines(question: Question, value: str) -> str:
    say(f"{question.label} ({_('one a line; an empty line ends')}):")
    say(value)
    given = []
    while text := line("  "):
        given.append(text)
    return "\n".join(given) or value


def _one(question: Question, value: str) -> str:
    options = list(question.options)
    if question.found:
        label = question.label or options[0].label
        if line(f"{label} ({_('y')}/{_('n')})", _("n")).casefold() not in {"y", _("y")}:
            return value
        options = [Option("", _("none")), *question.found()]
    if len(options) > _LONG:
        return _searched(question, options, value)
    say(f"{question.label}:")
    _show(options, [value])
    free = {str(number): one.value for number, one in enumerate(options, 1) if not one.refused}
    default = next((number for number, one in free.items() if one == value), "")
    while True:
        given = line("  " + _("number"), default)
        if given in free:
            return free[given]


def _searched(question: Question, options: list[Option], value: str) -> str:
    while True:
        given = line(f"{question.label} ({_('or a part of it')})", value)
        if any(one.value == given for one in options):
            return given
        fitting = [one for one in options if given.casefold() in one.label.casefold()]
        if len(fitting) == 1:
            return fitting[0].value
        say("\n".join(f"  {one.value}  {one.label}" for one in fitting[:20]) or _("nothing fits"))


def _many(question: Question, value: list[str]) -> list[str]:
    options = list(question.options)
    while True:
        say(f"{question.label}:")
        _show(options, value, "x")
        given = line("  " + _("numbers to turn over; Enter goes on"))
        places = [int(one) - 1 for one in given.replace(",", " ").split() if one.isdecimal()]
        if not places:
            return value
        turned = {options[place].value for place in places if 0 <= place < len(options) and not options[place].refused}
        value = [one.value for one in options if one.value in {*value} ^ turned]


def _show(options: Sequence[Option], chosen: Sequence[str], mark: str = "*") -> None:
    for number, one in enumerate(options, 1):
        if one.refused:
            say(f"   - {one.label}\n       {one.refused}")
        else:
            say(f"  {number:>2} [{mark if one.value in chosen else ' '}] {one.label}")
