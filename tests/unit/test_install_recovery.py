# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The boot entry for repairs: of the last system that came up well, never the default, and closed to who only has a key
to the door of the house."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node.machine import (
    bootloader,
    grubstate,
    recovery,
    slots,
    system_update,
)
from kos_image.recipe import TREES

INSTALLED = TREES / "installed"
UNIT = INSTALLED / "usr/lib/systemd/system/kos-recovery.service"
SCRIPT = INSTALLED / "usr/sbin/kos-recovery"
UUID = "0b5fd1e2-5d3c-4b58-9a3c-0d8a5a6c1f00"
CMDLINE = f"rd.luks.name={UUID}=kos-root root=/dev/mapper/kos-root systemd.unit=kos-recovery.target\n"


@pytest.fixture
def esp(tmp_path):
    for name in ("kernel", "initrd"):
        (tmp_path / name).write_text(name)
    (tmp_path / "esp").mkdir()

    def add(number, kind, tries=None):
        words = ["rw", "rd.shell=0"]
        made = slots.Entry(
            number, f"kOS, system {number}", *(str(tmp_path / n) for n in ("kernel", "initrd")), words, tries
        )
        slots.stage(str(tmp_path / "esp"), made, kind)
        slots.publish(str(tmp_path / "esp"), number)

    add.path = tmp_path / "esp"
    return add


def test_the_loader_offers_it_and_never_starts_it_by_itself(esp):
    esp(1, "entries")
    recovery.offer(str(esp.path), 1)
    lines = dict(line.split(" ", 1) for line in (esp.path / recovery.ENTRY).read_text().splitlines())
    assert (
        lines["title"] == "kOS (recovery)" and lines["linux"] == "/kos/1/linux" and lines["initrd"] == "/kos/1/initrd"
    )
    assert lines["options"].split() == ["rw", "rd.shell=0", "kos.slot=1", "systemd.unit=kos-recovery.target"]
    # systemd-boot takes the first that matches, in the order of the keys.
    assert "default kos-*" in bootloader.configuration() and not os.path.basename(recovery.ENTRY).startswith("kos-")
    assert [slot.number for slot in slots.listing(str(esp.path))] == [1]


def test_grub_reads_it_beside_its_slots(esp):
    esp(1, "grub")
    recovery.offer(str(esp.path), 1)
    text = (esp.path / recovery.GRUB_ENTRY).read_text()
    assert "menuentry 'kOS (recovery)' --id kos-rescue" in text and "'systemd.unit=kos-recovery.target'" in text
    assert "linux /kos/1/linux 'rw'" in text and "initrd /kos/1/initrd" in text
    assert '"/kos/$slot/entry.cfg"' in grubstate.configuration() and "rescue" in grubstate.configuration()
    assert [slot.number for slot in slots.listing(str(esp.path))] == [1]


def test_it_is_of_the_system_that_came_up_well_last(esp, capsys):
    esp(1, "entries")
    recovery.offer(str(esp.path), 1)
    esp(2, "entries", 3)
    assert "/kos/1/linux" in (esp.path / recovery.ENTRY).read_text()
    slots.bless(str(esp.path), 2)
    system_update._offer_recovery(str(esp.path), 2)
    assert "/kos/2/linux" in (esp.path / recovery.ENTRY).read_text()
    slots.remove(str(esp.path), 1)
    before = os.stat(esp.path / recovery.ENTRY).st_ino
    system_update._offer_recovery(str(esp.path), 2)
    assert os.stat(esp.path / recovery.ENTRY).st_ino == before
    (esp.path / "loader/entries/kos-2.conf").write_text("nothing of ours\n")
    system_update._offer_recovery(str(esp.path), 2)
    assert "no newer recovery entry" in capsys.readouterr().err


@pytest.fixture
def asked(tmp_path):
    """The script, where the third passphrase is right."""
    (tmp_path / "bin").mkdir()
    count = tmp_path / "count"
    for name, text in {
        "cryptsetup": f'echo "$@" >>{count}; [ $(wc -l <{count}) -ge 3 ]',
        "sleep": ":",
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    def run(cmdline):
        (tmp_path / "cmdline").write_text(cmdline)
        environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(
            ["sh", SCRIPT, tmp_path / "cmdline"], input="echo opened\n", env=environment, text=True,
            capture_output=True, check=False, timeout=30,
        )  # fmt: skip
        return done, count.read_text().splitlines() if count.exists() else []

    return run


def test_only_what_opens_the_disk_opens_a_shell_whatever_a_chip_did(asked):
    done, tried = asked(CMDLINE)
    assert len(tried) == 3 and "opened" in done.stdout.splitlines()
    words = tried[0].split()
    assert {"--test-passphrase", "--disable-external-tokens"} <= {*words} and words[-1] == f"/dev/disk/by-uuid/{UUID}"
    known = subprocess.run(["cryptsetup", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(word in known for word in words if word.startswith("--"))


def test_where_no_disk_is_locked_there_is_no_shell(asked):
    done, tried = asked("root=/dev/vda2 ro\n")
    assert done.returncode == 1 and not tried and "opened" not in done.stdout.splitlines()


def test_recovery_forces_no_login_and_starts_nothing_else():
    texts = [path.read_text() for path in (UNIT, UNIT.with_suffix(".target"), SCRIPT)]
    assert not [text for text in texts if "SULOGIN" in text or "network-online" in text or "multi-user" in text]
    assert "Requires=sysinit.target kos-recovery.service" in texts[1]
    assert stat.S_IMODE(SCRIPT.stat().st_mode) == 0o755
