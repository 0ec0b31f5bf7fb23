# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every word that a person reads, in the language that was chosen. English is the source; locale/ has the others."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import polib

FOLDER = Path(__file__).resolve().parents[1] / "locale"
# In their own language, as whoever looks for it would.
LANGUAGES = {"en": "English", "de": "Deutsch"}
_chosen = {"language": "en"}


def use(language: str) -> None:
    """Say everything in this language from now on; in English where it has no translation."""
    _chosen["language"] = language if language in LANGUAGES else "en"


def language() -> str:
    """The language that is spoken."""
    return _chosen["language"]


def _(text: str) -> str:
    """The text in the language that is spoken."""
    return catalogue(_chosen["language"]).get(text) or text


@cache
def catalogue(of: str) -> dict[str, str]:
    """What each text of the source is in a language; empty for English."""
    path = FOLDER / f"{of}.po"
    return {entry.msgid: entry.msgstr for entry in polib.pofile(str(path))} if path.exists() else {}
