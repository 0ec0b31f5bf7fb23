# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the converge module; send the generation's archive only to a node that lacks it."""

from __future__ import annotations

import hashlib
from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils import events

MODULE = "kind.kos.converge"


class ActionModule(ActionBase):
    """The wire: one module call a step, two where the archive has to travel."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run one step on the node and tell the watchers what came of it."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        host = (task_vars or {}).get("inventory_hostname", "localhost")
        archive = arguments.pop("archive", None)
        step, part = arguments.get("step"), arguments.get("part", "")
        events.emit(f"{step}.begin", host, part=part)
        result: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        if result.get("need_archive") and archive:
            arguments["archive"] = self._send(archive)
            result = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        if result.get("failed"):
            events.emit(f"{step}.failed", host, part=part, **_shown(result))
        else:
            events.emit(f"{step}.end", host, part=part, **_shown(result))
        return result

    def _send(self, archive: str) -> str:
        folder = self._make_tmp_path() if not self._connection._shell.tmpdir else self._connection._shell.tmpdir
        with open(archive, "rb") as stream:
            name = hashlib.sha3_256(stream.read()).hexdigest()[:16]
        remote = self._connection._shell.join_path(folder, f"{name}.tar.gz")
        self._transfer_file(archive, remote)
        self._fixup_perms2((folder, remote))
        return str(remote)


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    keys = ("msg", "changes", "parts", "download_bytes", "health", "number", "reverted", "recovered")
    return {key: result[key] for key in keys if key in result}
