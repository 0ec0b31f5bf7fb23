# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same install on other machines: a BIOS; firmware without keys and a TPM, which takes the machine's own keys."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil

import mediums
import pytest
from benches import HOSTNAME, INSTALLS, Bench
from mediabuilds import Builder

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]


@pytest.fixture(scope="module")
def stick(tmp_path_factory):
    """A stick, and who built it."""
    builder = Builder(tmp_path_factory.mktemp("own"))
    builder.run("lock")
    folder = tmp_path_factory.mktemp("stick")
    builder.build("usb", folder / "stick.raw")
    yield folder / "stick.raw", builder
    shutil.rmtree(folder)


@pytest.fixture
def bench(stick, tmp_path_factory):
    """A machine with a blank disk."""
    folder = tmp_path_factory.mktemp("bench")
    media = mediums.Media(f"install{os.getpid()}")
    made = Bench(media, stick[1], stick[0], folder, f"canary-{secrets.token_hex(12)}")
    made.fresh()
    yield made
    shutil.rmtree(folder)


def install(bench, answers, **how):
    with bench.installing(answers, **how) as machine:
        found = machine.wait_for(rf"Installed: {HOSTNAME}", "FAILED: ", "unattended.service: Failed", seconds=INSTALLS)
        assert found and found[0].startswith("Installed"), machine.said[-5000:]
        machine.running.process.wait(300)


def healthy(shell):
    shell.run("until [ ! -e /var/lib/kos/pending ]; do sleep 3; done", False, 900)
    assert f"{HOSTNAME} is healthy" in shell.run("sudo -i kai status")


def test_a_bios_starts_it_by_grub(bench):
    install(bench, bench.answers(), firmware="bios")
    with bench.started(firmware="bios") as (machine, shell):
        shell.wait(machine)
        assert shell.run("test -d /sys/firmware/efi && echo uefi || echo bios") == "bios"
        assert "kos.slot=1" in shell.run("cat /proc/cmdline")
        healthy(shell)


def test_a_person_unlocks_it_at_the_console_and_a_wrong_passphrase_is_asked_for_again(bench):
    install(bench, bench.answers(encryption={"recovery_key": False}))
    with bench.started(unlocked=False) as (machine, shell):
        machine.answer(r"passphrase for disk", "not the passphrase")
        machine.answer(r"passphrase for disk", bench.canary)
        shell.wait(machine)
        assert bench.canary not in machine.said


def test_the_passphrase_is_typed_on_the_keyboard_that_was_chosen_and_still_with_a_new_initrd(bench):
    german = dataclasses.replace(bench, canary=f"Zypresse-yeti-Z\u00fcrich-{secrets.token_hex(6)}")
    install(german, german.answers(keyboard="de"))
    with german.started(unlocked=False) as (machine, shell):
        machine.wait(r"passphrase for disk")
        machine.type_german(german.canary)
        shell.wait(machine)
        # What an update of the kernel makes here holds the same keymap.
        made, keymap = "/var/tmp/made", "/etc/console-setup/cached_UTF-8_del.kmap.gz"
        shell.run(f"sudo dracut --quiet --force {made}", timeout=1500)
        shell.run(f"sudo lsinitrd --file etc/kos/console.kmap {made} | cmp - <(zcat {keymap})")
        assert shell.run(f"zcat {keymap} | grep -c 'keycode 21 = +U+007a'") == "1"


def test_firmware_without_keys_takes_the_machines_own_and_the_tpm_opens_the_disk(bench):
    secure = {"firmware": "secure-boot", "variables": "setup", "tpm": True}
    install(bench, bench.answers(encryption={"secure_boot": "own", "tpm2": {}}), **secure)
    with bench.started(**secure) as (machine, shell):
        # The first start enrols the keys and starts anew.
        shell.wait(machine)
        assert "Secure Boot: enabled (user)" in shell.run("sudo bootctl status")
        shell.run("until systemctl is-active --quiet kos-enrol.service; do sleep 3; done", False, 600)
        tokens = shell.run("sudo cryptsetup luksDump /dev/disk/by-partlabel/kos-root")
        # Nobody was there to write down a recovery key.
        assert "systemd-tpm2" in tokens and "systemd-recovery" not in tokens
        healthy(shell)
        shell.run("sudo systemctl poweroff", check=False)
        machine.running.process.wait(300)
    with bench.started(unlocked=False, **secure) as (machine, shell):
        # Nobody types anything.
        shell.wait(machine)
