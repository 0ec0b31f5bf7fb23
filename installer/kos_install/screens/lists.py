# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the system knows to choose from: time zones, keyboards, locales. Each has a short list to fall back on."""

from __future__ import annotations

import zoneinfo
from functools import cache
from pathlib import Path

from .. import keyboards as xkb
from .. import localities

# These come first, and each in its own language.
_KEYBOARDS = {
    "us": "English (US)",
    "gb": "English (UK)",
    "de": "Deutsch",
    "de(nodeadkeys)": "Deutsch, ohne Tottasten",
    "at": "Deutsch (\u00d6sterreich)",
    "ch": "Deutsch (Schweiz)",
    "ch(fr)": "Fran\u00e7ais (Suisse)",
    "fr": "Fran\u00e7ais",
    "es": "Espa\u00f1ol",
    "it": "Italiano",
    "pl": "Polski",
    "us(dvorak)": "Dvorak",
}
_LOCALES = ("C.UTF-8", "de_AT.UTF-8", "de_CH.UTF-8", "de_DE.UTF-8", "en_GB.UTF-8", "en_US.UTF-8")
_SYSTEM = Path("/")


@cache
def timezones() -> tuple[str, ...]:
    """Names of time zones; UTC comes first."""
    names = {
        name
        for name in zoneinfo.available_timezones()
        if "/" in name and not name.startswith(("Etc/", "posix/", "right/"))
    }
    return ("UTC", *sorted(names))


@cache
def locales() -> tuple[str, ...]:
    """Names of locales in UTF-8."""
    return ("C.UTF-8", *sorted({*localities.locales(_SYSTEM), *_LOCALES} - {"C.UTF-8"}))


def keyboards() -> dict[str, str]:
    """Keyboards by name, and what they are called."""
    found = xkb.known(_SYSTEM)
    others = sorted((said, name) for name, said in found.items() if name not in _KEYBOARDS)
    return {**_KEYBOARDS, **{name: said for said, name in others}}
