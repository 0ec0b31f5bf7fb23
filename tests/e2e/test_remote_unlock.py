# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine that waits for its passphrase is given it over SSH, and the key that may do so may do nothing else."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import time
import uuid

import mediums
import pytest
import slotdisks
from test_system_rollback import PACKAGES, parts  # noqa: F401  (a fixture)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]

DRIVE = "echo 'KOS-TEST {\"up\": 1}' >/dev/console\nsystemctl poweroff\n"


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def test_the_passphrase_is_given_over_ssh(parts, key, tmp_path):  # noqa: F811
    disk = slotdisks.make(
        parts, tmp_path, str(uuid.uuid4()), DRIVE, PACKAGES, unlock=key.with_suffix(".pub").read_text().strip()
    )
    unlocked(mediums.Media(f"unlock{os.getpid()}"), disk, key, free_port())


def unlocked(media, disk, key, port):
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "ConnectTimeout=60")
    words = [word for option in options for word in ("-o", option)]
    ssh = ["ssh", "-p", str(port), "-i", str(key), *words, "root@127.0.0.1"]
    with media.booted(disk, persist=True, usb=False, ssh=port) as machine:
        machine.wait(r"(?i)passphrase.*for disk|kos-unlock.*SSH|Please enter passphrase")
        # Whatever is asked for, a key gets the question for the passphrase alone.
        said = until([*ssh, "cat /etc/shadow"], 300)
        assert "A passphrase is typed on a terminal" in said and "root:" not in said
        assert answered(ssh, slotdisks.PASSPHRASE)
        machine.wait(r'KOS-TEST {"up": 1}')


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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
