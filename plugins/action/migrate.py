# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry a node's data to another profile, and tell whoever watches the run how it went."""

from __future__ import annotations

from typing import Any

from .node import ActionModule as Watched


class ActionModule(Watched):
    """One step, its outcome written to the run's events."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the step on the node."""
        super(Watched, self).run(tmp, task_vars)
        return self.watched(f"migrate_{self._task.args.get('step')}", dict(self._task.args), task_vars or {})
