# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine that boots, reached by SSH through a port of this one."""

from __future__ import annotations

import socket
import subprocess
import time

import pytest

_PATIENCE = 600  # seconds until it answers


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def key(path):
    """A new key pair; the path of its private half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def options(private):
    """SSH's, for a machine that nobody has seen before."""
    unknown = ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=30"]
    return ["-i", private, "-o", "LogLevel=ERROR", *unknown, "-o", "ServerAliveInterval=30"]


def argv(port, private):
    """The words of ssh to that machine."""
    return ["ssh", "-p", str(port), *options(private)]


def ssh(line, command, user="kos", patience=_PATIENCE):
    """The lines that a command prints there; tried again until it ends well, fails the test where it does not."""
    end = time.monotonic() + patience
    while True:
        done = subprocess.run([*line, f"{user}@127.0.0.1", command], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.splitlines()
        if time.monotonic() > end:
            pytest.fail(f"no SSH, or {command!r} fails: {done.stdout}{done.stderr}")
        time.sleep(5)
