# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the target a node: the playbook of every other door, on a root that is not booted, from the medium's bundle.

Its generation is *pending* then: units are enabled, secrets are made and the gate is passed on the first boot.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.cli.ansible import Playbook, Target
from ansible_collections.kind.kos.plugins.module_utils.node import files, store
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.plugin_utils import own_node

from ..errors import ApplyFailed
from ..storage.actions import Converge
from . import own, target
from .context import Context

# Of the target: on its encrypted disk there is room for what Ansible sends, in the medium's memory there may be none.
_WORK = "/var/tmp/kos-install"  # noqa: S108  (made for root alone)
_LOG = "/var/log/kos-install/converge.log"
_STEPS = {"plan.ready": 1, "stage.end": 2, "switch.end": 3, "commit.end": 4}


def perform(context: Context, action: Converge) -> None:
    """Run the playbook. Raises ApplyFailed, OSError."""
    root = Root(str(context.target))
    work = Path(root.join(_WORK))
    _cleared(work)
    log = Path(root.join(_LOG))
    files.make_directory(str(log.parent))
    playbook = Playbook(
        "site", Target(root.join(own_node.INVENTORY)), variables(root), log=log,
        within=target.within(context.target), environment=_environment(root, work),
    )  # fmt: skip
    try:
        failed = _follow(context, action, playbook)
    except BaseException:
        playbook.interrupt()
        raise
    if playbook.wait() or failed:
        raise ApplyFailed(f"the profile cannot be installed: {failed or playbook.said()}")
    shutil.rmtree(work)


def stands(context: Context, _action: Converge) -> bool:
    """Whether the current generation of the target is one that waits for its first boot, untouched since."""
    root = Root(str(context.target))
    pending = files.read_json(root.state("pending"), {})
    current = store.current(root)
    whole = current is not None and store.find(root, current.id) is not None
    return whole and current is not None and pending.get("generation") == current.number


def variables(root: Root) -> dict[str, Any]:
    """What is said beyond the node's own inventory: paths as they are seen from here, and what to install from."""
    return {
        "kos_root": root.path,
        "kos_user_layer": root.join(own_node.LAYER),
        "kos_bundle": root.join(own_node.BUNDLE),
    }


def _cleared(work: Path) -> None:
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True, mode=0o700)


def _environment(root: Root, work: Path) -> Mapping[str, str]:
    folder = str(work)
    names = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "ANSIBLE_HOME", "ANSIBLE_REMOTE_TEMP")
    return {**dict.fromkeys(names, folder), "KOS_SIGNING_KEY": root.join(own.SIGNING_KEY), "LC_ALL": "C.UTF-8"}


def _follow(context: Context, action: Converge, playbook: Playbook) -> str:
    """Tell how it goes; returns what went wrong, or nothing."""
    failed = ""
    for event in playbook.events():
        if event is None:
            continue
        if event["event"] in _STEPS:
            context.progress(action.id, _STEPS[event["event"]], len(_STEPS), "steps")
        if event["event"] == "plan.ready":
            names = ", ".join(row["name"] for row in event["plan"]["services"])
            context.log(f"plan of {event['plan']['profile']}: {names}")
        elif event["event"] == "switch.end":
            context.log(f"{event['part'].replace('_', ' ')}: in place")
        elif "msg" in event:
            failed = str(event["msg"])
        elif event["event"] == "preflight.failed":
            failed = "this machine is below the minimum of the profile: name what may be lacking in accept_shortfall"
        elif event["event"] == "configuration.invalid":
            failed = "; ".join(str(fault.get("message", fault)) for fault in event["faults"])
    return failed
