# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service's own backup and restore commands, as its manifest has them."""

from __future__ import annotations

import os
import subprocess

from . import store, system
from .files import Root


def copy_data(root: Root, verb: str, service_name: str, directory: str) -> int:
    """Run the service's command for `verb` (``backup`` or ``restore``) on `directory`; returns its exit code.

    Raises Refused for a service that has no such command.
    """
    generation = store.current(root)
    services = generation.manifest["services"] if generation else []
    service = next((row for row in services if row["name"] == service_name), None)
    if service is None or not service["backup"]:
        known = [row["name"] for row in services if row["backup"]]
        raise store.Refused(f"'{service_name}' has nothing to {verb}; known: {', '.join(known)}")
    argv = service["backup"]["command" if verb == "backup" else "restore"]
    user = service["backup"].get("user") or service["user"]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "KOS_BACKUP": os.path.abspath(directory),
    }
    stops = verb in service["backup"]["stopped"]
    if stops:
        system.systemctl("stop", service["units"])
    try:
        return subprocess.run(["runuser", "-u", user, "--", *argv], env=environment, cwd="/", check=False).returncode
    finally:
        if stops:
            system.systemctl("start", service["units"])
