# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the system knows to choose from: time zones, keyboards, locales. Each has a short list to fall back on."""

from __future__ import annotations

import re
import zoneinfo
from functools import cache
from pathlib import Path

# Console keymaps that have a name of their own here; the others are called as their files are.
_KEYBOARDS = {
    "us": "English (US)",
    "uk": "English (UK)",
    "de": "Deutsch",
    "de-latin1-nodeadkeys": "Deutsch, without dead keys",
    "sg": "Schweiz",
    "fr": "Fran\u00e7ais",
    "es": "Espa\u00f1ol",
    "it": "Italiano",
    "pl": "Polski",
    "dvorak": "Dvorak",
}
_LOCALES = ("C.UTF-8", "de_AT.UTF-8", "de_CH.UTF-8", "de_DE.UTF-8", "en_GB.UTF-8", "en_US.UTF-8")
_KEYMAPS = Path("/usr/share/keymaps")  # of console-data
_SUPPORTED = Path("/usr/share/i18n/SUPPORTED")


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
def locales(supported: Path = _SUPPORTED) -> tuple[str, ...]:
    """Names of locales in UTF-8."""
    try:
        rows = (line.split() for line in supported.read_text(encoding="utf-8").splitlines())
        found = {row[0] if "." in row[0] else f"{row[0]}.UTF-8" for row in rows if len(row) == 2 and row[1] == "UTF-8"}
    except OSError:
        found = set()
    return ("C.UTF-8", *sorted({*found, *_LOCALES} - {"C.UTF-8"}))


@cache
def keyboards(folder: Path = _KEYMAPS) -> dict[str, str]:
    """Console keymaps by name, and what they are called; those with a name of their own first."""
    files = (path.name.partition(".")[0] for path in folder.glob("**/*.kmap.gz"))
    found = {name: name for name in sorted(files) if re.fullmatch(r"[a-z0-9_-]{2,32}", name)}
    return {**_KEYBOARDS, **{name: said for name, said in found.items() if name not in _KEYBOARDS}}
