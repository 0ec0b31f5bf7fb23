# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the converge module; send the generation's archive only to a node that lacks it."""

from __future__ import annotations

import os
from typing import Any

from .node import ActionModule as Watched


class ActionModule(Watched):
    """The wire: one module call a step, two where the archive has to travel."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run one step on the node."""
        super(Watched, self).run(tmp, task_vars)
        return self.watched(self._task.args.get("step", ""), dict(self._task.args), task_vars or {})

    def on_node(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """One call of the module, and a second with the archive when the node asks for it."""
        archive = arguments.pop("archive", None)
        result = super().on_node(arguments, task_vars)
        if result.get("need_archive") and archive:
            result = super().on_node({**arguments, "archive": self._send(archive)}, task_vars)
        return result

    def _send(self, archive: str) -> str:
        shell = self._connection._shell
        folder = shell.tmpdir or self._make_tmp_path()
        remote: str = shell.join_path(folder, os.path.basename(archive))
        self._transfer_file(archive, remote)
        self._fixup_perms2((folder, remote))
        return remote
