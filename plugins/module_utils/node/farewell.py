# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a service leaves a node: its exit hooks while it still answers, its log kept, what was temporary cleaned."""

from __future__ import annotations

import os
import syslog
from collections.abc import Iterable
from typing import Any

from . import files, gate, system
from .files import NodeError, Root

KEPT_LINES = 2000
_FOLDER = "exits"


def tell(sentence: str, warning: bool = False) -> None:
    """Say something in the node's journal, under ``kos``."""
    syslog.openlog("kos", 0, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_WARNING if warning else syslog.LOG_NOTICE, sentence)


def gone(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The services of the manifest `before` that `after` has no more, the last to start first."""
    staying = {service["name"] for service in after["services"]} if after else set()
    return [row for row in reversed(before["services"] if before else []) if row["name"] not in staying]


def run_exit_hooks(services: Iterable[dict[str, Any]]) -> None:
    """Let each service say goodbye; one that cannot is no reason to keep it, and is told of in the journal."""
    for service in services:
        try:
            gate.run_hooks(service, "exit")
        except (NodeError, OSError) as error:
            tell(f"{service['name']}: its exit hook failed, and it goes all the same: {error}", warning=True)


def clear_away(root: Root, services: Iterable[dict[str, Any]], why: str) -> None:
    """Keep the end of each service's log, clean what is temporary, and tell the journal `why` it has left.

    Its units are stopped and their files still there. Temporary are systemd's runtime and cache directories; data
    volumes are not touched.
    """
    for service in services:
        lines = [line for unit in service["units"] for line in system.journal_tail(unit, KEPT_LINES)]
        if lines:
            _keep(root, service["name"], lines)
        if service["units"]:
            system.run(["systemctl", "clean", "--what=runtime", "--what=cache", "--", *service["units"]], check=False)
        tell(f"{service['name']} has left this node: {why}")


def _keep(root: Root, name: str, lines: list[str]) -> None:
    folder = root.state(_FOLDER)
    files.make_directory(folder)
    os.chmod(folder, 0o700)
    files.write(os.path.join(folder, f"{name}.log"), ("\n".join(lines) + "\n").encode(), 0o600)
