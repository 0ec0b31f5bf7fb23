# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the node, and tell whoever watches the run what it answered."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ..plugin_utils import events

SHOWN = (
    "answer",
    "changes",
    "download_bytes",
    "health",
    "left",
    "msg",
    "no_room",
    "number",
    "parts",
    "recovered",
    "reverted",
)


class ActionModule(ActionBase):
    """The module of the same name, its outcome written to the run's events."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module on the node."""
        super().run(tmp, task_vars)
        return self.watched(self._task.args.get("query", "facts"), dict(self._task.args), task_vars or {})

    def watched(self, step: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the task's module with `arguments`; `step` names it in the events."""
        host, part = task_vars.get("inventory_hostname", "localhost"), arguments.get("part", "")
        events.emit(f"{step}.begin", host, part=part)
        try:
            result = self.on_node(arguments, task_vars)
        except AnsibleConnectionFailure as error:
            events.emit("unreachable", host, msg=str(error))
            raise
        outcome = "failed" if result.get("failed") else "end"
        shown = {key: result[key] for key in SHOWN if key in result}
        events.emit(f"{step}.{outcome}", host, part=part, **shown)
        return result

    def on_node(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """One call of the module."""
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result
