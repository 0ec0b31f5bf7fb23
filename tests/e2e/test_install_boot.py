# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same install on firmware that waits for keys, with a TPM: it takes the machine's own, and opens the disk."""

from __future__ import annotations

import os
import secrets
import shutil

import mediums
import pytest
from benches import STARTS, Bench
from mediabuilds import PROFILE, Builder

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]

SECURE = {"firmware": "secure-boot", "variables": "setup", "tpm": True}


@pytest.fixture(scope="module")
def stick(tmp_path_factory):
    """A stick, and who built it."""
    builder = Builder(tmp_path_factory.mktemp("own"))
    folder = tmp_path_factory.mktemp("stick")
    yield builder.stick(folder), builder
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


def off(machine, shell):
    shell.run("sudo systemctl poweroff", check=False)
    machine.running.process.wait(300)


def test_firmware_without_keys_takes_the_machines_own_and_the_tpm_opens_the_disk(bench):
    """Complaint 6: the TPM is enrolled once it can be believed, and opens the disk."""
    answers = bench.answers(encryption={"secure_boot": "own", "tpm2": {}})
    assert bench.canary not in bench.install(answers, **SECURE)
    assert not bench.holds(bench.canary, "PRIVATE KEY")
    # The stick was left in, and the machine starts it first: what it has installed it does not wipe again.
    with bench.installing(answers, **SECURE) as machine:
        machine.wait("confirm.again: these very answers have installed", STARTS)
        print(f"left alone by the same stick, after {machine.seconds():.0f} s")
        machine.cut()
    with bench.started(**SECURE) as (machine, shell):
        machine.wait("Custom Secure Boot keys successfully enrolled, rebooting")
        shell.wait(machine)
        print(f"in, with keys of its own, after {machine.seconds():.0f} s")
        assert "Secure Boot: enabled (user)" in shell.run("sudo bootctl status", check=False)
        shell.healthy()
        # The wish goes when the chip was told.
        shell.run("until ! sudo test -e /etc/kos/enrol/wish.json; do sleep 3; done", timeout=600)
        tokens = shell.run("sudo cryptsetup luksDump /dev/disk/by-partlabel/kos-root")
        # Nobody was there to write down a recovery key.
        assert "systemd-tpm2" in tokens and "systemd-recovery" not in tokens and "kos-enrol" not in tokens
        off(machine, shell)
    with bench.started(unlocked=False, **SECURE) as (machine, shell):
        # Nobody types anything.
        shell.wait(machine)
        print(f"in, opened by the TPM, after {machine.seconds():.0f} s")
        assert "Secure Boot: enabled (user)" in shell.run("sudo bootctl status", check=False)
        shell.healthy()
        assert bench.canary not in machine.said
        shell.accepted("--profile", PROFILE)
