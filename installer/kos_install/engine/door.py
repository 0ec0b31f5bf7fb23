# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH for somebody who installs from elsewhere: off until it is asked for, with a key and a password of one start.

Who comes in gets the installer and nothing else: its screens, or its engine's socket.
"""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import Any

from ..errors import InstallError

FOLDER = Path("/run/kos/door")
UNIT = "kos-install-door.service"
# Without letters that look alike; 12 of 31 are 59 bits, and sshd lets nobody try often.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_LENGTH = 12
_CONFIG = """\
ListenAddress 0.0.0.0
ListenAddress [::]
HostKey {folder}/key
PidFile none
UsePAM yes
PermitRootLogin yes
AllowUsers root
PasswordAuthentication yes
KbdInteractiveAuthentication no
AuthorizedKeysFile .ssh/authorized_keys
AllowTcpForwarding no
AllowAgentForwarding no
AllowStreamLocalForwarding no
X11Forwarding no
PermitTunnel no
MaxAuthTries 3
LoginGraceTime 60
ForceCommand /usr/bin/kos-install --visit
"""


def open_door(addresses: list[str], folder: Path = FOLDER) -> dict[str, Any]:
    """Start sshd; how to come in. Each time the password is a new one. Raises InstallError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / "key").exists():
            _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kos-install", "-f", str(folder / "key")])
        (folder / "sshd_config").write_text(_CONFIG.format(folder=folder))
        password = "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(_LENGTH // 4))
        _run(["chpasswd"], f"root:{password}\n")
        _run(["systemctl", "stop", UNIT], fine=True)
        _run([
            "systemd-run", f"--unit={UNIT}", "--quiet", "--collect", "--property=RuntimeDirectory=sshd",
            "/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config"),
        ])  # fmt: skip
        fingerprint = _run(["ssh-keygen", "-l", "-f", str(folder / "key.pub")]).split()[1]
    except OSError as error:
        raise InstallError(f"the door cannot be opened: {error}") from error
    return {"addresses": addresses, "fingerprint": fingerprint, "password": password}


def _run(argv: list[str], stdin: str = "", fine: bool = False) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode and not fine:
        raise InstallError(f"{argv[0]} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
