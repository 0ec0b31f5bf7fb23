# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A person with a stick, a serial line and a PC without UEFI: every page by keys, and a node that GRUB starts.

The passphrase is typed on the German keyboard that was chosen, by the keymap of the installer's initrd.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil

import mediums
import pytest
import seats
from benches import HOSTNAME, INSTALLS, SERIAL, USER, Bench
from mediabuilds import PROFILE, Builder

from ansible_collections.kind.kos.lab.machines import Disk

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux here"),
]

# A quarter of it is what a guess at the passphrase costs: nobody types a cheaper one.
MEMORY = 2048
KEYMAP = "/etc/console-setup/cached_UTF-8_del.kmap.gz"
MODHEX = "[cbdefghijklnrtuv]"  # the letters of recovery keys: they lie at the same places of most keyboards


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A machine with a blank disk, and a stick."""
    monkeypatch.chdir(tmp_path)
    builder = Builder(tmp_path)
    stick = builder.stick(tmp_path)
    made = Bench(
        mediums.Media(f"person{os.getpid()}"),
        builder,
        stick,
        tmp_path,
        f"Zypresse-yeti-Z\u00fcrich-{secrets.token_hex(6)}",
    )
    made.fresh()
    yield made
    shutil.rmtree(tmp_path)


def answer(seat, bench):
    """From the first page to the leave to wipe, as somebody does it who reads."""
    seat.until("Language")
    seat.press("Tab", "Enter")
    seat.type("deutsch (de)", r"deutsch \(de\)")
    seat.press("Enter")
    seat.until(r"Keyboard +Deutsch \(de\)")
    seat.on(rf"\(\*\) {PROFILE} ")
    seat.until("Too small: memory")
    seat.press("Tab", "Space")
    seat.until(r"\[x\] Install though it is too small")
    seat.on("EVERYTHING ON THIS DISK IS LOST")
    seat.on("^ +Passphrase")
    seat.type(bench.canary, rf"Passphrase +\*{{{len(bench.canary)}}}(?!\*)")
    seat.press("Tab")
    seat.type(bench.canary, rf"Once more +\*{{{len(bench.canary)}}}(?!\*)")
    seat.on("DHCP")
    seat.on(rf"User name +{USER}")
    seat.press("Tab", "Tab", "Tab", "Tab")
    seat.type(bench.key(), re.escape(bench.key()[-20:]))
    seat.on("Time zone")
    seat.press("C-e", "C-u")
    seat.type(HOSTNAME, rf"Host name +{HOSTNAME}")
    seat.on(r"\[x\] .*MB")
    seat.on("To confirm, type its name")
    assert HOSTNAME in seat.text() and "passphrase, recovery key" in seat.text()
    seat.type(SERIAL, rf"^ +{SERIAL}")


def test_a_person_installs_it_by_keys_and_unlocks_it_by_hand(bench):
    """Complaint 15: GRUB starts a node whose disk is locked by LUKS2 and argon2id."""
    disk = Disk(bench.disk, SERIAL)
    with (
        bench.media.booted(bench.stick, disks=(disk,), firmware="bios", memory=MEMORY, restart=False) as machine,
        seats.seated(machine, bench.folder) as seat,
    ):
        answer(seat, bench)
        print(f"answered after {machine.seconds():.0f} s")
        seat.on(r"Step \d+ of \d+")
        seat.until("I have written it down", INSTALLS)
        recovery = "".join(re.findall(rf"(?:{MODHEX}{{8}}-?){{2}}", seat.text()))
        assert len(recovery) == 71
        print(f"installed after {machine.seconds():.0f} s")
        seat.press("Enter")
        seat.until("SSH fingerprint")
        fingerprint = "".join(re.search(r"(SHA256:\S+)\s[^\n]*\n\s+(\S*)", seat.text()).groups())
        assert recovery[:8] not in seat.text()
        seat.press("Tab", "Enter")
        machine.running.process.wait(300)
        assert bench.canary not in machine.said
    assert not bench.holds(bench.canary, recovery, "PRIVATE KEY")
    with bench.started(unlocked=False, firmware="bios") as (machine, shell):
        machine.answer("recovery key for disk kos-root", "not the passphrase")
        machine.wait("recovery key for disk kos-root")
        machine.type_german(bench.canary)
        shell.wait(machine)
        print(f"in, started by GRUB, after {machine.seconds():.0f} s")
        assert shell.fingerprint() == fingerprint
        assert shell.run("test -d /sys/firmware/efi && echo uefi || echo bios") == "bios"
        assert "kos.slot=1" in shell.run("cat /proc/cmdline")
        shell.healthy()
        shell.accepted("--profile", PROFILE)
        assert bench.canary not in machine.said
        # What was written down opens it, too.
        opens = "sudo cryptsetup open --test-passphrase --key-file=- /dev/disk/by-partlabel/kos-root"
        shell.run(f"echo -n {recovery} | {opens}")
        # What an update of the kernel makes here holds the same keymap.
        made = "/var/tmp/made"
        shell.run(f"sudo dracut --quiet --force {made}", timeout=1500)
        shell.run(f"sudo lsinitrd --file etc/kos/console.kmap {made} | cmp - <(zcat {KEYMAP})")
        assert shell.run(f"zcat {KEYMAP} | grep -cE 'keycode +21 = \\+U\\+007a'") == "1"
