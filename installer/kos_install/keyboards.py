# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keyboards by the names of XKB, a layout or one with a variant: de, ch(fr), us(dvorak).

From that name Debian's setupcon makes the keymap of every console: of the medium, of the node, of its initrd.
"""

from __future__ import annotations

import string
import subprocess
from collections.abc import Callable
from pathlib import Path

SETTINGS = "/etc/default/keyboard"
# What setupcon(1) makes of them, for consoles of UTF-8 whose backspace is the usual one.
KEYMAP = "/etc/console-setup/cached_UTF-8_del.kmap.gz"
_RULES = Path("usr/share/X11/xkb/rules/base.lst")  # of xkb-data
_MODEL = "pc105"
# Without Latin letters nobody could type a command: these come second, after `us`, as keyboard-configuration has it.
_SECOND = frozenset({
    "af", "am", "ara", "az", "bd", "bg", "brai", "bt", "by", "eg", "et", "ge", "gn", "gr", "il", "in", "iq", "ir", "kg",
    "kh", "kz", "la", "lk", "ma", "mk", "mm", "mn", "mv", "my", "np", "pk", "rs", "ru", "sy", "th", "tj", "tz", "ua",
    "uz",
})  # fmt: skip
_TOGGLE = "grp:alt_shift_toggle"

Run = Callable[[list[str]], str]


def _run(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def known(system: Path = Path("/")) -> dict[str, str]:
    """Every keyboard that a system has, and what it is called there; empty where that cannot be read."""
    try:
        lines = (system / _RULES).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found, section = {}, ""
    for line in lines:
        name, _, called = line.strip().partition(" ")
        if name == "!":
            section = called.strip()
        elif section == "layout" and name not in {"", "custom"}:
            found[name] = called.strip()
        elif section == "variant" and name:
            layout, _, called = called.strip().partition(": ")
            found[f"{layout}({name})"] = called
    return found


def types_latin(name: str, run: Run = _run) -> bool:
    """Whether every letter of ASCII is on it. Some that XKB has make no keymap at all: the console knows less."""
    keys = run(["ckbcomp", "-model", _MODEL, *_xkb(name)]).split()
    return all(f"U+{ord(letter):04x}" in keys or f"+U+{ord(letter):04x}" in keys for letter in string.ascii_lowercase)


def settings(name: str) -> str:
    """The file SETTINGS for a keyboard (keyboard(5))."""
    layouts, variants, options = _xkb(name)
    return (
        f'XKBMODEL="{_MODEL}"\nXKBLAYOUT="{layouts}"\nXKBVARIANT="{variants}"\nXKBOPTIONS="{options}"\n'
        'BACKSPACE="guess"\n'
    )


def use(name: str, run: Run = _run, system: Path = Path("/")) -> None:
    """Give the keys of this machine's consoles their meaning, as the node's will get it. Raises OSError."""
    (system / SETTINGS.lstrip("/")).write_text(settings(name), encoding="utf-8")
    # It is judged by its age, and the clock of a machine may be anything.
    (system / KEYMAP.lstrip("/")).unlink(missing_ok=True)
    run(["setupcon", "--keyboard-only", "--force"])


def _xkb(name: str) -> tuple[str, str, str]:
    """Layouts, variants and options."""
    layout, _, variant = name.removesuffix(")").partition("(")
    return (f"us,{layout}", f",{variant}", _TOGGLE) if layout in _SECOND else (layout, variant, "")
