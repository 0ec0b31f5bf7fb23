# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keyboard of the initrd: the module that brings it along says what loads it, and before whom."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
import yaml

import kos_image
from kos_install.actions import initrds

FOLDER = Path(kos_image.__file__).parent
MODULE = FOLDER / "dracut/90kos-keymap"


@pytest.fixture(scope="module")
def unit():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(MODULE / "kos-keymap.service")
    return parser


def test_the_keymap_is_loaded_before_anybody_asks(unit):
    before = unit["Unit"]["Before"].split()
    assert {"systemd-ask-password-console.service", "cryptsetup-pre.target"} <= set(before)
    # Passive: without this nobody would start it, and cryptsetup would not wait for it.
    assert "cryptsetup-pre.target" in unit["Unit"]["Wants"]


def test_the_installer_and_dracut_put_it_where_it_is_loaded_from(unit):
    place = unit["Unit"]["ConditionPathExists"]
    assert place == f"/{initrds._KEYMAP}"
    assert (
        unit["Service"]["ExecStart"].endswith(place) and f"$initdir{place}" in (MODULE / "module-setup.sh").read_text()
    )


def test_nothing_else_loads_another():
    initrd = yaml.safe_load((FOLDER / "definitions/_installed.yaml").read_text())["initrd"]
    assert {"console-setup", "i18n"} <= set(initrd["omit"]) and "kos-keymap" in initrd["add+"]
