# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a machine of disk tests: carry out a plan that comes as JSON, and say what happened, a line an event.

`kill` is [action, state]: there the process dies by SIGKILL, as it does when somebody pulls the plug of the engine.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

sys.path[:0] = ["/run/code/collections", "/run/code/installer"]

import diskplans  # noqa: E402

from ansible_collections.kind.kos.plugins.module_utils.node.files import Root  # noqa: E402
from kos_install import beforehand  # noqa: E402
from kos_install.actions import mount, mounts, pristine, target, unpack  # noqa: E402
from kos_install.actions.context import Context  # noqa: E402
from kos_install.answers import Answers  # noqa: E402
from kos_install.engine import apply, journal  # noqa: E402
from kos_install.errors import InstallError  # noqa: E402
from kos_install.hardware.model import Machine  # noqa: E402
from kos_install.storage.actions import Plan, digest_of  # noqa: E402

# What an install does once the system is unpacked.
UNPACKED = ("configure", "converge", "boot", "verify", "finish")
SMALL = types.SimpleNamespace(
    perform=lambda context, _action: target.lay(Root(str(context.target)), mounts.entries(context.plan)),
    stands=lambda context, _action: target.lies(Root(str(context.target)), mounts.entries(context.plan)),
)


def _no_sync():
    """What it takes to lose a system: nothing waits for the disk before the firmware is told to start it."""
    mount.sync = lambda _target, _log: None
    # A snapshot would have all of it on the disk, too.
    pristine.keep, pristine.are_kept = lambda _context: None, lambda _context: True
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


def forge_zfs(device):
    """Labels as ZFS has them (vdev_label.c): 128 uberblocks, twice at each end of the disk."""
    disk = os.open(device, os.O_RDWR)
    size = os.lseek(disk, 0, os.SEEK_END)
    for label in (0, 256 << 10, size - (512 << 10), size - (256 << 10)):
        for number in range(128):
            os.pwrite(disk, diskplans.UBERBLOCK + bytes([number]), label + (128 << 10) + (number << 10))
    os.fsync(disk)


def watch(to):
    """Write down the arguments and environment of every process, as long as FILE.going is there."""
    going = Path(f"{to}.going")
    going.touch()
    seen = set()
    while going.exists():
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    seen.add(process.joinpath(name).read_bytes())
    Path(to).write_bytes(b"\n".join(seen))


def planned(storage, answers, without):
    """What the planner makes of this machine, without the kinds of steps that it cannot take; and the machine."""
    from kos_install.hardware import detect
    from kos_install.storage.plan import Circumstances, plan

    asked = Answers.model_validate({**answers, "storage": storage, "encryption": {"argon2id": {"memory_kib": 32768}}})
    machine = detect.detect()
    made = plan(asked, machine, Circumstances(test=True))
    return made.model_copy(update={"actions": [one for one in made.actions if one.kind not in without]}), machine


def abandon():
    """Give up the install that was begun."""
    [found], _faults = apply.begun()
    apply.abandon(found)


def say(*words):
    print(json.dumps(words), flush=True)


class Driver:
    """Carries out what was asked, and strikes where it is told to."""

    def __init__(self, asked):
        self.asked = asked

    def action(self, name, state):
        say("action", name, state)
        if state == "started" and name in self.asked.get("before", ()):
            # Somebody else's hand; it is given the passphrase.
            given = self.asked["secrets"]["passphrase"].encode()
            subprocess.run(["bash", "-ec", self.asked["before"][name]], input=given, check=True)
        self.strike(name, state)

    def progress(self, name, done, total, _unit):
        say("progress", name, done, total)
        self.strike(name, "progress")

    def strike(self, *where):
        if list(where) == self.asked.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)

    def context(self):
        """What the engine would hand to the actions."""
        asked, machine = self.asked, Machine()
        answers = Answers.model_validate_json(json.dumps(asked["answers"]))
        begun = apply.begun()[0] if asked.get("resume") else []
        if begun:
            [found] = begun
            plan, answers = found.plan, found.answers
        elif asked.get("storage"):
            plan, machine = planned(asked["storage"], asked["answers"], asked.get("without", UNPACKED))
        else:
            plan = Plan.model_validate_json(json.dumps(asked["plan"]))
        return Context(
            answers=answers,
            machine=machine,
            plan=plan,
            secrets=asked["secrets"],
            progress=self.progress,
            action=self.action,
            log=lambda text: say("log", text),
            show_recovery_key=lambda key: say("recovery_key", key),
        )

    def run(self):
        unpack.IMAGE = Path("/dev/disk/by-id/virtio-image")
        # This small system was not started from a medium.
        beforehand.data.size = lambda: 0
        if self.asked.get("sabotage"):
            SABOTAGES[self.asked["sabotage"]]()
        # A small system has nothing that could be configured but what it mounts.
        sys.modules["kos_install.actions.configure"] = SMALL
        if self.asked.get("fresh"):
            apply._begun = lambda _context: None
        beside = apply.exclusively() if self.asked.get("beside another") else contextlib.nullcontext()
        try:
            with beside:
                apply.install(self.context())
        except InstallError as error:
            say("failed", str(error))
            return 3
        say("done")
        return 0


def carry_out(asked):
    """What the agent calls."""
    return Driver(asked).run()


def main():
    verbs = {"--zfs": forge_zfs, "--watch": watch, "--abandon": abandon}
    if sys.argv[1:]:
        return verbs[sys.argv[1]](*sys.argv[2:])
    return carry_out(json.load(sys.stdin))


if __name__ == "__main__":
    sys.exit(main())
