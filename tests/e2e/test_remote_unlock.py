# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine that waits for its passphrase is opened from afar: over SSH, by a key that may do nothing else; by Tang."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
import uuid

import mediums
import pytest
import slotdisks
import sshed
import tangs
from test_system_rollback import PACKAGES, parts  # noqa: F401  (a fixture)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]

ASKED, UP = r"(?i)passphrase.*for disk|kos-unlock.*SSH|Please enter passphrase", r'KOS-TEST {"up": 1}'
DRIVE = "echo 'KOS-TEST {\"up\": 1}' >/dev/console\nsystemctl poweroff\n"


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def test_the_passphrase_is_given_over_ssh(parts, key, tmp_path):  # noqa: F811
    unlock = slotdisks.Unlock(key.with_suffix(".pub").read_text().strip())
    disk = slotdisks.make(parts, tmp_path, str(uuid.uuid4()), DRIVE, PACKAGES, unlock)
    unlocked(mediums.Media(f"unlock{os.getpid()}"), disk, key, sshed.free_port())


def test_a_server_of_the_network_opens_it(parts, tmp_path):  # noqa: F811
    media = mediums.Media(f"tang{os.getpid()}")
    server = tangs.Server(tangs.ensure(media.lab, media.apt), tmp_path, sshed.free_port())
    unlock = slotdisks.Unlock(tang=server.url, give=server.give)
    disk = slotdisks.make(parts, tmp_path, str(uuid.uuid4()), DRIVE, PACKAGES, unlock)
    # `ssh` is what gives it a network.
    with media.booted(disk, persist=True, usb=False, ssh=sshed.free_port()) as machine:
        machine.wait(ASKED)
        assert machine.wait_for(UP, seconds=30) is None, "without the server it stays closed"
        with server.serving():
            machine.wait(UP)


def unlocked(media, disk, key, port):
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "ConnectTimeout=60")
    words = [word for option in options for word in ("-o", option)]
    ssh = ["ssh", "-p", str(port), "-i", str(key), *words, "root@127.0.0.1"]
    with media.booted(disk, persist=True, usb=False, ssh=port) as machine:
        machine.wait(ASKED)
        # Whatever is asked for, a key gets the question for the passphrase alone.
        said = until([*ssh, "cat /etc/shadow"], 300)
        assert "A passphrase is typed on a terminal" in said and "root:" not in said
        assert answered(ssh, slotdisks.PASSPHRASE)
        machine.wait(UP)


def until(line, seconds):
    """What SSH says, once there is a server."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 255:
            return done.stdout + done.stderr
        time.sleep(5)
    pytest.fail(f"no SSH server within {seconds} s: {done.stderr}")


def answered(ssh, passphrase):
    """Whether the question came, on a terminal, and an answer was typed."""
    ours, theirs = pty.openpty()
    line = [ssh[0], "-tt", *ssh[1:]]
    process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said = b""
    while not re.search(rb"(?i)(passphrase|recovery key) for disk", said):
        try:
            said += os.read(ours, 4096)
        except OSError:
            print(said)
            return False
    time.sleep(1)
    os.write(ours, f"{passphrase}\n".encode())
    process.wait(120)
    return True
