# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pure core says in English, in the language that is spoken: its sentences with values, its picture."""

from __future__ import annotations

import re
from functools import cache

from .words import _, catalogue, language

# Columns of a line of the picture: `number what size | number what size`.
_CELL = re.compile(r"(?P<number>[ +=\d]{4} )(?P<what>.{24})(?P<size> +[\d.]+ [a-zA-Z]+)$")
_BAR = " | "
# Of a fault: the file and the key, at most; what to do.
_WHERE = re.compile(r"((?:\S+: ){0,2})(.*)", re.DOTALL)
_FIX = re.compile(r"(.*) \(([^()]*)\)", re.DOTALL)


def said(text: str) -> str:
    """The same, line by line; what has no translation stays as it is."""
    if not catalogue(language()):
        return text
    return "\n".join(_line(line, language()) for line in text.split("\n"))


def picture(text: str) -> str:
    """The picture of disks before and after: what its cells hold is translated, its columns stay."""
    if not catalogue(language()):
        return text
    return "\n".join(_row(line) for line in text.split("\n"))


def _line(line: str, of: str) -> str:
    bare = line.strip()
    # A sentence with a value at its start would take the place and the key of a fault for that value.
    return line.replace(bare, _fault(bare, of) or _sentence(bare, of) or bare)


def _sentence(text: str, of: str) -> str:
    if exact := catalogue(of).get(text):
        return exact
    for pattern, translated in _templates(of):
        if match := pattern.fullmatch(text):
            return translated.format(*(_line(value, of) for value in match.groups()))
    return ""


def _fault(text: str, of: str) -> str:
    """A fault of the configuration, as `Fault` has it: where, what is wrong, and in brackets what to do."""
    where, rest = _WHERE.fullmatch(text).groups()  # type: ignore[union-attr]
    if wrong := where and _sentence(rest, of):
        return f"{where}{wrong}"
    fixed = _FIX.fullmatch(rest)
    if fixed and (wrong := _sentence(fixed[1], of)):
        return f"{where}{wrong} ({_line(fixed[2], of)})"
    return ""


@cache
def _templates(of: str) -> list[tuple[re.Pattern[str], str]]:
    """Sentences that have values in them, the most particular first."""
    given = [(text, translated) for text, translated in catalogue(of).items() if "{}" in text]
    given.sort(key=lambda row: -len(row[0].replace("{}", "")))
    return [(re.compile("(.*?)".join(map(re.escape, text.split("{}")))), translated) for text, translated in given]


def _row(line: str) -> str:
    if line.endswith(_BAR.rstrip()):
        return _cell(line.removesuffix(_BAR.rstrip())) + _BAR.rstrip()
    if _BAR in line:
        left, _bar, right = line.partition(_BAR)
        return _cell(left) + _BAR + _cell(right)
    return _disk(line) if line.startswith("/dev/") else _line(line, language())


def _disk(line: str) -> str:
    """A disk in a line: `/dev/sda (model, size, serial number) what becomes of it`."""
    for part in (" stays as is", " (this medium)"):
        if line.endswith(part):
            line = line.removesuffix(part) + " " + _line(part.strip(), language())
    serial = ", " + _("serial {serial}").format(serial="")
    return line.replace(", serial ", serial).replace("no serial number", _("no serial number"))


def _cell(cell: str) -> str:
    match = _CELL.match(cell)
    if match is None:
        words = cell.strip()
        return cell.replace(words, _line(words, language())).rstrip().ljust(len(cell)) if words else cell
    label, colon, purpose = match["what"].rstrip().partition(": ")
    what = f"{label}: {_line(purpose, language())}" if colon else _line(label, language())
    return f"{match['number']}{what[:24]:<24}{match['size']}"
