# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keyboard of the initrd: what the kernel is told is what a passphrase is typed on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import kos_image

SCRIPT = Path(kos_image.__file__).parent / "dracut/90kos-keymap/kos-keymap.sh"


@pytest.fixture
def machine(tmp_path):
    """A system with two keymaps, whose programs write down how they were called."""
    for name in ("qwertz/de", "azerty/fr"):
        (tmp_path / f"usr/share/keymaps/i386/{name}.kmap").parent.mkdir(parents=True)
        (tmp_path / f"usr/share/keymaps/i386/{name}.kmap").write_text("keymaps 0-2\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("loadkeys", "kbd_mode"):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/said\n')
        program.chmod(0o755)

    def start(cmdline):
        (tmp_path / "proc/cmdline").write_text(f"{cmdline}\n")
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        done = subprocess.run(["sh", SCRIPT], env={"KOS_KEYMAP_SYSTEM": str(tmp_path), "PATH": path}, check=False)
        said = tmp_path / "said"
        return done.returncode, said.read_text() if said.exists() else ""

    return start


def test_the_keymap_that_the_kernel_is_told_is_loaded(machine):
    code, said = machine("root=/dev/sda vconsole.keymap=fr vconsole.keymap=de quiet")
    assert code == 0 and said.splitlines()[0].startswith("kbd_mode -u")
    assert said.splitlines()[1].endswith("/usr/share/keymaps/i386/qwertz/de.kmap")


@pytest.mark.parametrize(
    "cmdline", ["quiet", "vconsole.keymap=", "vconsole.keymap=../../../etc/passwd", "vconsole.keymap=*"]
)
def test_without_one_and_for_what_is_no_name_nothing_is_loaded(machine, cmdline):
    assert machine(cmdline) == (0, "")


def test_an_unknown_one_is_said(machine):
    assert machine("vconsole.keymap=xx") == (1, "")
