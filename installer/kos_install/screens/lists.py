# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the system knows to choose from: time zones, keyboards, locales. Each has a short list to fall back on."""

from __future__ import annotations

import zoneinfo
from functools import cache
from pathlib import Path

# The countries whose people the screens speak to, and those that come first on any list.
_KEYBOARDS = {
    "us": "English (US)",
    "gb": "English (UK)",
    "de": "German",
    "at": "German (Austria)",
    "ch": "German (Switzerland)",
}
_LOCALES = ("C.UTF-8", "de_AT.UTF-8", "de_CH.UTF-8", "de_DE.UTF-8", "en_GB.UTF-8", "en_US.UTF-8")
_XKB = Path("/usr/share/X11/xkb/rules/base.lst")
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
def keyboards(xkb: Path = _XKB) -> dict[str, str]:
    """Layouts by their name, and what they are called."""
    try:
        section = xkb.read_text(encoding="utf-8").split("! layout\n", 1)[1].split("\n!", 1)[0]
        rows = [line.split(maxsplit=1) for line in section.splitlines() if line.strip()]
    except (OSError, IndexError):
        rows = []
    found = {row[0]: row[1] for row in rows if len(row) == 2 and row[0] != "custom"}
    return dict(sorted({**_KEYBOARDS, **found}.items(), key=lambda row: row[1]))
