# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resolve and render on the controller, once per kind of hardware."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils import assemble, clusters, events
from ..plugin_utils.faults import ConfigurationError
from ..plugin_utils.hardware import RESOURCES

KEPT = 20
_OPTIONS = {
    "profile": {"type": "str", "required": True},
    "environment": {"type": "str"},
    "site_layer": {"type": "path"},
    "user_layer": {"type": "path"},
    "configs": {"type": "path"},
    "cluster": {"type": "str"},
    "accept_shortfall": {"type": "list", "elements": "str", "choices": list(RESOURCES), "default": []},
    "hardware": {"type": "dict", "required": True},
}


class ActionModule(ActionBase):
    """The controller's half of a deploy: no connection is opened."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the plan, the generation's id and its archive."""
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        known = task_vars or {}
        host = known.get("inventory_hostname", "localhost")
        try:
            cluster = clusters.membership(
                host, options["cluster"] or "", known.get("groups", {}), known.get("hostvars", {})
            )
            planned = assemble.plan(_request(options), assemble.facts_from(options["hardware"], f"facts of {host}"))
            built = assemble.generation(planned) if not planned.blocked else None
        except ConfigurationError as error:
            events.emit("configuration.invalid", host, faults=[fault.as_dict() for fault in error.faults])
            raise AnsibleActionFail(f"the configuration is not valid:\n{error}") from error
        plan = {**planned.as_dict(), "cluster": clusters.shown(cluster)}
        if built is None:
            events.emit("preflight.failed", host, plan=plan)
            raise AnsibleActionFail(_refusal(host, planned), result={"plan": plan})
        archive, architecture = _kept(built.id, built.archive()), planned.plan.kind.architecture
        events.emit("plan.ready", host, plan=plan, id=built.id, archive=archive, architecture=architecture)
        node = {"shortfalls": [row.as_dict() for row in planned.shortfalls], "cluster": cluster}
        return {"changed": False, "plan": plan, "id": built.id, "archive": archive, "node": node}


def _request(options: dict[str, Any]) -> assemble.Request:
    layers = {"site": options["site_layer"], "user": options["user_layer"]}
    paths = {name: Path(value) for name, value in layers.items() if value}
    if options["configs"]:
        paths["configs"] = Path(options["configs"])
    accepted = frozenset(options["accept_shortfall"])
    return assemble.Request(options["profile"], options["environment"] or None, accepted=accepted, **paths)


def _refusal(host: str, planned: assemble.Planned) -> str:
    if planned.unsupported:
        return f"{host}: {planned.unsupported}"
    short = [row for row in planned.shortfalls if not row.accepted]
    rows = ", ".join(f"{row.what} (needs {row.need}, has {row.have})" for row in short)
    names = ",".join(row.what for row in short)
    profile = planned.plan.deployment.name
    return f"{host} is below the minimum of {profile}: {rows}. To go on all the same: kos_accept_shortfall: [{names}]"


def _kept(identity: str, archive: bytes) -> str:
    """Write the archive where every fork of this run finds it; the newest few stay."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kos" / "generations"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{identity}.tar.gz"
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(archive)
    temporary.rename(path)
    for old in sorted(folder.glob("*.tar.gz"), key=lambda found: found.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return str(path)
