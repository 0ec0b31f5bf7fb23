# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reaching a machine that was started from a medium: over SSH, and only if its key is the one that its screen shows."""

from __future__ import annotations

import base64
import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils import public_keys

from .engine.client import ATTACH
from .errors import UsageError

# An address of IPv6 stands in brackets where a port follows.
_HOST = re.compile(
    r"(?:(?P<user>[a-z_][a-z0-9_-]*)@)?"
    r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*)"
    r"|(?P<bare>[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_PORTS = range(1, 65536)
_PATIENCE = "30"  # seconds, in which a slow machine agrees on a key, too


@contextlib.contextmanager
def pinned(given: str, fingerprint: str | None) -> Iterator[list[str]]:
    """The command that reaches the engine over there; it holds one connection, so that a password is typed once.

    Raises UsageError where nobody answers, or where the key is not the one that was given or confirmed.
    """
    match = _HOST.fullmatch(given)
    if match is None:
        raise UsageError(f"{given} is no USER@HOST, nor USER@HOST:PORT")
    if fingerprint and not _FINGERPRINT.fullmatch(fingerprint):
        raise UsageError("a fingerprint is SHA256: and 43 characters, as the other screen shows it")
    host, port = match["host"] or match["ipv6"] or match["bare"], match["port"] or "22"
    if int(port) not in _PORTS:
        raise UsageError(f"{port} is no port: they go from {_PORTS.start} to {_PORTS.stop - 1}")
    with tempfile.TemporaryDirectory(prefix="kos-remote-") as folder:
        known, control = Path(folder) / "known_hosts", Path(folder) / "control"
        known.write_text(_trusted(host, port, fingerprint) + "\n")
        # Nothing of the user's own configuration: the key was fetched without it, from this very host and port.
        options = [
            "-F", "none", "-p", port, "-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=/dev/null",
            "-o", "StrictHostKeyChecking=yes", "-o", f"ControlPath={control}", "-o", f"ConnectTimeout={_PATIENCE}",
            "-o", "ServerAliveInterval=15", "-l", match["user"] or "root",
        ]  # fmt: skip
        master = ["ssh", *options, "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-N", "-f", host]
        if subprocess.run(master, check=False).returncode:
            raise UsageError(f"{host} did not let us in: is the door open on its screen (F9), and the password right?")
        try:
            yield ["ssh", *options, "-o", "ControlMaster=no", "-o", "BatchMode=yes", host, ATTACH]
        finally:
            subprocess.run(["ssh", *options, "-O", "exit", host], check=False, capture_output=True)


def _trusted(host: str, port: str, fingerprint: str | None) -> str:
    """The line of known_hosts, of the key with this fingerprint, or with one that a person has compared."""
    argv = ["ssh-keyscan", "-p", port, "-T", _PATIENCE, "-t", "ed25519", host]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith("#")]
    if not lines:
        raise UsageError(f"{host} has no SSH server that answers: open the door on its screen (F9)")
    line = lines[0]
    seen = fingerprint_of(line)
    if fingerprint and seen != fingerprint:
        raise UsageError(f"{host} shows another key, {seen}: somebody may be in between; nothing was sent")
    if not fingerprint and not _compared(host, seen):
        raise UsageError("the fingerprints differ: nothing was sent")
    return line


def fingerprint_of(line: str) -> str:
    """The fingerprint of a line of known_hosts, as every OpenSSH tool prints it. Raises UsageError."""
    try:
        blob = base64.b64decode(line.split()[2], validate=True)
    except (IndexError, ValueError) as error:
        raise UsageError("the host sent something that is no SSH key") from error
    return public_keys.digest_of(blob)


def _compared(host: str, seen: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nobody is here to compare fingerprints: give --fingerprint")
    print(f"{host} shows this fingerprint:\n\n  {seen}\n\nIts own screen must show the same.")
    return input("Type yes if it does: ").strip().casefold() == "yes"
