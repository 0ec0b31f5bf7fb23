# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a machine of disk tests: carry out a plan that comes as JSON, and say what happened, a line an event.

`kill` is [action, state]: there the process dies by SIGKILL, as it does when somebody pulls the plug of the engine.
"""

import json
import os
import signal
import sys
import types
from pathlib import Path

sys.path[:0] = ["/run/code/collections", "/run/code/installer"]

from ansible_collections.kind.kos.plugins.module_utils.node.files import Root  # noqa: E402
from kos_install.actions import mount, mounts, target, unpack  # noqa: E402
from kos_install.actions.context import Context  # noqa: E402
from kos_install.answers import Answers  # noqa: E402
from kos_install.engine import apply, journal  # noqa: E402
from kos_install.errors import InstallError  # noqa: E402
from kos_install.hardware.model import Machine  # noqa: E402
from kos_install.storage.actions import Plan, digest_of  # noqa: E402

SMALL = types.SimpleNamespace(
    perform=lambda context, _action: target.lay(Root(str(context.target)), mounts.entries(context.plan)),
    stands=lambda context, _action: target.lies(Root(str(context.target)), mounts.entries(context.plan)),
)


def _no_sync():
    """What it takes to lose a system: nothing waits for the disk before the firmware is told to start it."""
    mount.sync = lambda _target, _log: None
    sys.modules["kos_install.actions.verify"] = types.SimpleNamespace(
        perform=lambda _context, _action: None, stands=lambda _context, _action: False
    )


def _in_place():
    """What it takes to lose a journal: each new state of it goes where the last one was."""

    def append(self, action, state, _facts=None):
        done = [one for one in self.plan.actions if self.done(one)] + ([action] if state == "done" else [])
        number = len(self.records)
        self.records.append(journal.Record(number, action.id, digest_of(action), state))
        blocks = journal.header(self.plan, self.answers, done)
        with journal._opened(self.device) as descriptor:
            journal._write(descriptor, 0, blocks)

    journal.Journal.append = append


SABOTAGES = {"no sync": _no_sync, "in place": _in_place}


def main():
    asked = json.load(sys.stdin)
    unpack.IMAGE = Path(asked.get("image", "/dev/disk/by-id/virtio-image"))
    if asked.get("sabotage"):
        SABOTAGES[asked["sabotage"]]()
    # A small system has nothing that could be configured but what it mounts.
    sys.modules["kos_install.actions.configure"] = SMALL

    def say(*words):
        print(json.dumps(words), flush=True)

    def died(*where):
        if list(where) == asked.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)

    def action(name, state):
        say("action", name, state)
        died(name, state)

    def progress(name, done, total, unit):
        say("progress", name, done, total)
        died(name, "progress")

    context = Context(
        answers=Answers.model_validate_json(json.dumps(asked["answers"])),
        machine=Machine(),
        plan=Plan.model_validate_json(json.dumps(asked["plan"])),
        secrets=asked["secrets"],
        progress=progress,
        action=action,
        log=lambda text: say("log", text),
        show_recovery_key=lambda key: say("recovery_key", key),
    )
    if asked.get("journal"):
        [found] = apply.begun()
        context = Context(**{**vars(context), "answers": found.answers, "plan": found.plan})
    try:
        apply.install(context)
    except InstallError as error:
        say("failed", str(error))
        return 3
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
