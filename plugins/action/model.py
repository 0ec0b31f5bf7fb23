# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the model module; a file of the controller goes straight to where it stays on the node."""

from __future__ import annotations

import os
from typing import Any

from ..module_utils.node import models
from ..module_utils.node.files import NodeError, spoken
from ..plugin_utils import events
from .node import ActionModule as Node


class ActionModule(Node):
    """Check the file here, ask where it may go, write it there, have the node verify and keep it."""

    def watched(self, step: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the module; of a file of the controller, send what the node does not have."""
        host, source = task_vars.get("inventory_hostname", "localhost"), arguments.get("source") or ""
        if arguments.get("state") != "present" or "://" in source or self._task.check_mode:
            return super().watched(step, arguments, task_vars)
        try:
            size = self._checked(arguments, source)
        except (NodeError, OSError) as error:
            said = str(error) if isinstance(error, NodeError) else spoken(error)
            events.emit(f"{step}.failed", host, msg=said)
            return {"failed": True, "msg": said}
        offer = {"state": "offered", "name": arguments["name"], "sha256": arguments["sha256"], "size": size}
        answer = self.on_node(offer, task_vars)
        if answer.get("failed"):
            events.emit(f"{step}.failed", host, msg=answer.get("msg", ""))
            return answer
        if not answer["here"]:
            self._connection.put_file(source, answer["part"])
        return super().watched(step, {**arguments, "part": answer["part"]}, task_vars)

    def _checked(self, arguments: dict[str, Any], source: str) -> int:
        """The size of the file, once it is what was named: before gigabytes travel. Raises NodeError, OSError."""
        wanted = models.Wanted(str(arguments.get("name", "")), str(arguments.get("sha256", "")))
        models.require_gguf(source)
        found = models.digest(source)
        if found != wanted.sha256:
            raise models.Refused(f"the SHA-256 of {source} is {found}, not {wanted.sha256}: nothing was added")
        return os.path.getsize(source)
