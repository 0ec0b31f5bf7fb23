# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locale, keyboard and time zone by name: what the system that is installed, the one that runs, has of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils.faults import Fault, Place, nearest

from . import keyboards
from .answers import Answers

_ZONES, _SUPPORTED = "usr/share/zoneinfo", "usr/share/i18n/SUPPORTED"
_TZIF = b"TZif"  # RFC 9636
# Where somebody sees all of them.
_LISTED = {
    "timezone": "such as Europe/Berlin: timedatectl list-timezones prints all",
    "locale": f"such as de_DE.UTF-8: /{_SUPPORTED} has all",
    "keyboard": "such as de, ch(fr) or us(dvorak): localectl list-x11-keymap-layouts prints all",
}
# Of the C library itself.
_BUILT_IN = ("C.UTF-8", "C", "POSIX")


def locales(system: Path = Path("/")) -> set[str]:
    """The locales that can be made, in UTF-8 alone; without those of the C library where that cannot be read."""
    try:
        rows = [line.split() for line in (system / _SUPPORTED).read_text(encoding="utf-8").splitlines()]
    except OSError:
        return set()
    names = (row[0].replace(".UTF-8", "").partition("@") for row in rows if row[1:] == ["UTF-8"])
    return {f"{language}.UTF-8{at}{modifier}" for language, at, modifier in names}


def unknown(
    answers: Answers, place: str, system: Path = Path("/"), types: Callable[[str], bool] = keyboards.types_latin
) -> Iterator[Fault]:
    """What these answers name and `system` lacks: after the disk was wiped would be late to find out."""
    if not _is_zone(system, answers.timezone):
        yield _fault("timezone", answers.timezone, _zones(system), place)
    if answers.locale not in _BUILT_IN and answers.locale not in (made := locales(system)):
        yield _fault("locale", answers.locale, [*_BUILT_IN, *sorted(made)], place)
    names = keyboards.known(system)
    if answers.keyboard not in names:
        yield _fault("keyboard", answers.keyboard, list(names), place)
    elif not types(answers.keyboard):
        said = f"on '{answers.keyboard}' a console has not every Latin letter: passphrase and commands need them"
        yield Fault(said, Place(place), "keyboard", "take its layout without a variant, or us")


def doubtful(answers: Answers, place: str, system: Path = Path("/")) -> Iterator[Fault]:
    """The same where `system` is not what is installed: what it has no list of is not looked at."""
    lists = {"timezone": (system / _ZONES).is_dir(), "locale": locales(system), "keyboard": keyboards.known(system)}
    for fault in unknown(answers, place, system, lambda _name: True):
        if lists[fault.key]:
            yield Fault(
                f"no system is known to have '{getattr(answers, fault.key)}'", fault.place, fault.key, fault.fix
            )


def _is_zone(system: Path, name: str) -> bool:
    path = system / _ZONES / name
    return path.is_file() and path.read_bytes()[: len(_TZIF)] == _TZIF


def _zones(system: Path) -> list[str]:
    folder = system / _ZONES
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in names if not name.startswith(("posix/", "right/"))]


def _fault(key: str, given: str, names: list[str], place: str) -> Fault:
    return Fault(f"this system has no '{given}'", Place(place), key, _fix(key, given, names))


def _fix(key: str, given: str, names: list[str]) -> str:
    """The nearest name, for a locale of the same language; where none is near and they are many, how to see all."""
    language, mark, _rest = given.partition("_")
    related = [name for name in names if key == "locale" and mark and name.startswith(language + mark)]
    fix = nearest(given, related or names)
    return _LISTED[key] if fix.endswith("…") else fix
