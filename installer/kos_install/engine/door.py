# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH for somebody who installs from elsewhere: off until it is asked for, with a key and a password of one start.

Who comes in gets the installer and nothing else: its screens, or its engine's socket.
"""

from __future__ import annotations

import math
import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from ..errors import InstallError

FOLDER = Path("/run/kos/door")
UNIT = "kos-install-door.service"
PORT = 22
# Seconds until a server that was just started answers: a slow machine reads it from the stick, and is still starting.
_PATIENCE = 60.0
# Without letters that look alike; 12 of 31 are 59 bits, and sshd lets nobody try often.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_LENGTH = 12
_CONFIG = """\
Port {port}
HostKey {folder}/key
PidFile none
UsePAM yes
PermitRootLogin yes
AllowUsers root
PasswordAuthentication yes
KbdInteractiveAuthentication no
AuthorizedKeysFile .ssh/authorized_keys
DisableForwarding yes
PermitUserRC no
MaxAuthTries 3
MaxStartups 8
PerSourceMaxStartups 3
LoginGraceTime 30
ForceCommand /usr/bin/kos-install --visit
"""


def open_door(addresses: list[str], folder: Path = FOLDER) -> dict[str, Any]:
    """Start sshd; how to come in. Each time the password is a new one. Raises InstallError."""
    try:
        key = prepare(folder)
        _run(["systemctl", "stop", UNIT], fine=True)
        require_free(PORT)
        _run([
            "systemd-run", f"--unit={UNIT}", "--quiet", "--collect", "--property=RuntimeDirectory=sshd",
            "/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config"),
        ])  # fmt: skip
        try:
            await_server(key, PORT)
            # The last thing: a door that did not open leaves no password behind.
            password = "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(_LENGTH // 4))
            _run(["chpasswd"], f"root:{password}\n")
        except InstallError:
            _run(["systemctl", "stop", UNIT], fine=True)
            raise
        fingerprint = _run(["ssh-keygen", "-l", "-f", str(folder / "key.pub")]).split()[1]
    except OSError as error:
        raise InstallError(f"the door cannot be opened: {error}") from error
    return {"addresses": addresses, "fingerprint": fingerprint, "password": password}


def prepare(folder: Path, port: int = PORT) -> str:
    """A key of this start, and the server's configuration; the public half. Raises InstallError, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = folder / "key"
    if not key.exists():
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kos-install", "-f", str(key)])
    (folder / "sshd_config").write_text(_CONFIG.format(folder=folder, port=port), encoding="utf-8")
    return key.with_suffix(".pub").read_text(encoding="ascii").split()[1]


def require_free(port: int) -> None:
    """Raise InstallError where another server answers already: its password and key would not be those shown."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return
    raise InstallError(
        f"an SSH server listens on port {port} already (this machine was started with kos.ssh?):"
        " come in with the key that it was given"
    )


def await_server(key: str, port: int, patience: float = _PATIENCE) -> None:
    """Wait until a server answers, and look that it is ours: it has this key. Raises InstallError."""
    until = time.monotonic() + patience
    while True:
        # Nobody listening is said at once; who listens has all the time that is left to show a key.
        left = str(max(1, math.ceil(until - time.monotonic())))
        said = _run(["ssh-keyscan", "-p", str(port), "-T", left, "-t", "ed25519", "127.0.0.1"], fine=True)
        served = [line.split()[2] for line in said.splitlines() if len(line.split()) == 3 and line[0] != "#"]
        if served == [key]:
            return
        if served:
            raise InstallError(f"another SSH server than ours answers on port {port}: nobody was let in")
        if time.monotonic() > until:
            raise InstallError(f"the SSH server did not start: journalctl -u {UNIT} says why")
        time.sleep(0.2)


def _run(argv: list[str], stdin: str = "", fine: bool = False) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode and not fine:
        raise InstallError(f"{argv[0]} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
