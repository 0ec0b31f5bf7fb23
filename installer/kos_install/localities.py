# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locale, keyboard and time zone by name: whether the system that is installed, the one that runs, has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils.faults import Fault, Place, nearest

from .answers import Answers

_ZONES, _LOCALES, _KEYMAPS = "usr/share/zoneinfo", "usr/share/i18n/locales", "usr/share/keymaps/i386"
# Of the C library itself.
_BUILT_IN = ("C", "POSIX")


def unknown(answers: Answers, place: str, system: Path = Path("/")) -> Iterator[Fault]:
    """What these answers name and `system` lacks: after the disk was wiped would be late to find out."""
    if not (system / _ZONES / answers.timezone).is_file():
        known = [path.relative_to(system / _ZONES).as_posix() for path in (system / _ZONES).rglob("*")]
        yield _fault("timezone", answers.timezone, known, place)
    locale = answers.locale.partition(".")[0]
    modifier = answers.locale.partition("@")[2]
    name = f"{locale.partition('@')[0]}@{modifier}" if modifier else locale
    if name not in _BUILT_IN and not (system / _LOCALES / name).is_file():
        yield _fault("locale", answers.locale, [path.name for path in (system / _LOCALES).glob("*")], place)
    if not list((system / _KEYMAPS).glob(f"*/{answers.keyboard}.kmap.gz")):
        known = [path.name.removesuffix(".kmap.gz") for path in (system / _KEYMAPS).glob("*/*.kmap.gz")]
        yield _fault("keyboard", answers.keyboard, known, place)


def _fault(key: str, given: str, known: list[str], place: str) -> Fault:
    return Fault(f"this system has no '{given}'", Place(place), key, nearest(given, known))
