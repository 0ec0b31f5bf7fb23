# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a service's own program whether it would take its new files, before any of them is in place.

The files lie in a private directory that the program sees as /etc/kos. It runs as the service's user, with no
network, a /run and /var/lib of its own, and nothing else to write to.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from . import changes, files, login, system
from .changes import Comparison
from .files import NodeError, Root

ROOMS = "/run/kos"
_TIMEOUT = 60
_ROOM = (
    "PrivateNetwork=yes", "PrivateTmp=yes", "PrivateDevices=yes", "ProtectSystem=strict", "ProtectHome=yes",
    "TemporaryFileSystem=/run:mode=1777", "TemporaryFileSystem=/var/lib:mode=1777", "NoNewPrivileges=yes",
    "CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE",
    f"RuntimeMaxSec={_TIMEOUT}",
)  # fmt: skip


class CheckFailed(NodeError):
    """A service's own program refuses the files of the generation."""


def check_files(root: Root, comparison: Comparison, part: str | None = None) -> None:
    """Have every service whose files change checked, of `part` or of all parts, and sshd.

    A service whose packages are still to be installed is passed over: its part asks again once they are.
    Raises CheckFailed, LoginRefused.
    """
    if not root.booted:
        return
    if part in (None, "hardening"):
        login.check(root, comparison)
    touched = {entry.row["service"] for entry in comparison.wanted if entry.differs}
    for service in comparison.generation.manifest["services"]:
        wanted = service.get("check")
        if not wanted or service["name"] not in touched or set(wanted["packages"]) & set(comparison.missing_packages):
            continue
        if part in (None, changes.part_of(service["tier"], service)):
            _check(root, comparison, service)


def _check(root: Root, comparison: Comparison, service: dict[str, Any]) -> None:
    os.makedirs(ROOMS, mode=0o755, exist_ok=True)
    room = tempfile.mkdtemp(prefix="check-", dir=ROOMS)
    try:
        _fill(root, comparison, service["name"], room)
        argv = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--uid={service['user']}"]
        argv += [word for setting in _ROOM for word in ("-p", setting)]
        argv += ["-p", f"BindReadOnlyPaths={room}/etc:{files.CONFIGURATION}", "--", *service["check"]["exec"]]
        done = system.run(argv, check=False, timeout=_TIMEOUT + 15)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        told = " / ".join(said[-3:]) or f"{service['check']['exec'][0]} ended with {done.returncode}"
        raise CheckFailed(f"{service['name']} refuses its new files, and none of them was put in place: {told}")


def _fill(root: Root, comparison: Comparison, service: str, room: str) -> None:
    """The service's files as they will be; nothing sealed, and nothing from outside /etc/kos."""
    os.mkdir(f"{room}/etc", 0o755)
    accounts = system.Accounts(root)
    for entry in comparison.wanted:
        row = entry.row
        if row["service"] != service or entry.content is None or not row["path"].startswith(f"{files.CONFIGURATION}/"):
            continue
        path = f"{room}/etc{row['path'].removeprefix(files.CONFIGURATION)}"
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        uid, gid = accounts.ids(row["owner"], row["group"])
        files.write(path, entry.content, int(row["mode"], 8), uid, gid)
