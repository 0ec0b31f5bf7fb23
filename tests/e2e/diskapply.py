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
from pathlib import Path

sys.path[:0] = ["/run/code/collections", "/run/code/installer"]

from kos_install.actions import table, unpack  # noqa: E402
from kos_install.actions.context import Context  # noqa: E402
from kos_install.answers import Answers  # noqa: E402
from kos_install.engine import apply  # noqa: E402
from kos_install.errors import InstallError  # noqa: E402
from kos_install.hardware.model import Machine  # noqa: E402
from kos_install.storage.actions import Plan  # noqa: E402


def main():
    asked = json.load(sys.stdin)
    unpack.IMAGE = Path(asked.get("image", "/dev/disk/by-id/virtio-image"))
    if asked.get("modules"):
        sys.path.append("/run/code/tests/e2e")
        table.MODULES.update(asked["modules"])

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
        [journal] = apply.begun()
        context = Context(**{**vars(context), "answers": journal.answers, "plan": journal.plan})
    try:
        apply.install(context)
    except InstallError as error:
        say("failed", str(error))
        return 3
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
