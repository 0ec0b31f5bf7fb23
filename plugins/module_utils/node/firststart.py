# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was installed into a root that was not booted rests until its first start has made its secrets.

Its units are enabled, so systemd would start them, and they would fail, before kos-boot.service has come so far.
"""

from __future__ import annotations

import contextlib
import glob
import os
from typing import Any

from . import changes, files, system
from .files import Root

# In memory: where the first start is cut short, they rest again at the next one.
READY = "/run/kos/first-start"
_NAME = "kos-first-start.conf"
_REST = f"[Unit]\nConditionPathExists={READY}\n"


def rest(root: Root, manifest: dict[str, Any]) -> None:
    """Let no unit start that may need a secret; the firewall does from the first moment on."""
    _clear(root)
    services = {row["name"]: row for row in manifest["services"]}
    for row in manifest["units"]:
        early = changes.part_of(row["tier"], services.get(row["service"])) == "firewall"
        if row["starts"] == "now" and row["name"].endswith(".service") and not early:
            files.write(root.join(f"{changes.UNITS}/{row['name']}.d/{_NAME}"), _REST.encode())


def begin(root: Root) -> None:
    """From here on they may be started."""
    if _resting(root):
        files.write(root.join(READY), b"")


def end(root: Root) -> None:
    """Leave nothing of it. Safe to repeat after a crash."""
    rested = _resting(root)
    _clear(root)
    files.remove(root.join(READY))
    if rested and root.booted:
        system.run(["systemctl", "daemon-reload"], check=False)


def _resting(root: Root) -> bool:
    return any(os.path.exists(os.path.join(folder, _NAME)) for folder in _folders(root))


def _clear(root: Root) -> None:
    for folder in _folders(root):
        files.remove(os.path.join(folder, _NAME))
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _folders(root: Root) -> list[str]:
    return glob.glob(root.join(f"{changes.UNITS}/kos-*.service.d"))
