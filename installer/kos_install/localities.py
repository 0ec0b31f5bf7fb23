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
    zone = system / _ZONES / answers.timezone
    if not zone.is_file() or zone.read_bytes()[: len(_TZIF)] != _TZIF:
        zones = [path.relative_to(system / _ZONES).as_posix() for path in (system / _ZONES).rglob("*")]
        yield _fault("timezone", answers.timezone, zones, place)
    if answers.locale not in _BUILT_IN and answers.locale not in (made := locales(system)):
        yield _fault("locale", answers.locale, [*_BUILT_IN, *sorted(made)], place)
    names = keyboards.known(system)
    if answers.keyboard not in names:
        yield _fault("keyboard", answers.keyboard, list(names), place)
    elif not types(answers.keyboard):
        said = f"on '{answers.keyboard}' a console has not every Latin letter: passphrase and commands need them"
        yield Fault(said, Place(place), "keyboard", "take its layout without a variant, or us")


def _fault(key: str, given: str, names: list[str], place: str) -> Fault:
    return Fault(f"this system has no '{given}'", Place(place), key, nearest(given, names))
