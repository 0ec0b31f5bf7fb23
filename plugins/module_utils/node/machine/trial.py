# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of a system that is on trial: it must come up as well as the one it was made of, or the machine restarts.

It looks again and again until all is well or its time is over, and waits for no systemd unit: one that hangs is what it
is there for. A system that has proved itself is looked at too, but never restarted for what is found.
"""

from __future__ import annotations

import glob
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from .. import files, gate, store, system
from ..files import NodeError, Root
from ..journal import Journal
from . import layout, partitions, system_update, systems

# A person's own checks: programs that end with 0 when all is well.
CHECKS = "/etc/kos/healthy.d"
# Seconds until multi-user.target is reached, and from then on until all is well.
DEADLINE, GRACE = 900.0, 300.0
_BETWEEN, _ONE_CHECK = 5.0, 60.0
# A partition of the firmware's may come later than the system does: no mount of it holds up a start (`nofail`).
_FIRMWARE = 90.0


def on_trial(root: Root, esps: list[str], number: int) -> bool:
    """Whether the system that runs has yet to prove itself; where no ESP can be read, what was remembered counts."""
    found = [slot.good for slot in partitions.together(esps) if slot.number == number]
    if found:
        return not all(found)
    known = systems.load(root).known.get(number)
    return known is not None and known.state != "good"


def judge(root: Root, deadline: float = DEADLINE, grace: float = GRACE) -> bool:
    """Wait until this system is well; False where it is on trial and is not."""
    here = layout.find(root)
    if here is None:
        # Copied to a disk that the installer did not lay out: to restart would lead nowhere, for ever.
        sys.stdout.write("this system stands alone: nothing is tried, and there is none to go back to\n")
        return True
    esps: list[str] = []
    text = _said(layout.apart) or wait(lambda: _said(lambda: esps.extend(layout.esps())), min(grace, _FIRMWARE))
    trial = on_trial(root, esps, here.slot)
    text = text or wait(unfinished, deadline if trial else 0.0)
    text = text or wait(lambda: first_complaint(root), grace if trial else 0.0)
    if not text:
        sys.stdout.write(f"system {here.slot} is well\n")
        return True
    sys.stdout.write(f"system {here.slot} is not well: {text}\n")
    if trial:
        systems.note_trial(root, here.slot, text)
    return not trial


def _said(act: Callable[[], None]) -> str:
    """What went wrong, if anything did."""
    try:
        act()
    except (NodeError, OSError) as error:
        return str(error)
    return ""


def first_complaint(root: Root) -> str:
    """What is not well, if anything; a look that cannot be taken counts as that."""
    try:
        return next(complaints(root), "")
    except (NodeError, OSError, ValueError, KeyError) as error:
        return f"it cannot be told: {error}"


def wait(look: Callable[[], str], seconds: float) -> str:
    """What `look` still complains of when it does not any more, or when time is over."""
    until = time.monotonic() + seconds
    while True:
        text = look()
        if not text or time.monotonic() + _BETWEEN > until:
            return text
        time.sleep(_BETWEEN)


def unfinished() -> str:
    """Whether the boot has yet to come to its end."""
    state = system.run(["systemctl", "is-active", "multi-user.target"], check=False).stdout.decode().strip()
    return "" if state == "active" else f"the boot did not come to its end: multi-user.target is {state}"


def complaints(root: Root) -> Iterator[str]:
    """What is not well in a system that has booted, a sentence each; the cheapest look first."""
    before = files.read_json(root.join(system_update.BASELINE), {"running": [], "routed": False})
    states = system.unit_states(before["running"], "Id,ActiveState")
    failed = sorted(name for name, row in states.items() if row.get("ActiveState") == "failed")
    if failed:
        yield f"{', '.join(failed)} ran before the update and failed after it"
    if before["routed"] and not system_update.routed():
        yield "the network had a way out before the update and has none now"
    yield from _of_services(root)
    yield from _of_own_checks(root)


def _of_services(root: Root) -> Iterator[str]:
    if os.path.exists(root.state("pending")) or Journal(root).open:
        yield "the node's generation is not in force yet"
    active = store.current(root)
    if active is not None:
        for health in gate.check_once(active.manifest["services"]):
            if not health.healthy:
                yield f"{health.service}: {health.detail}"


def _of_own_checks(root: Root) -> Iterator[str]:
    for path in sorted(glob.glob(root.join(f"{CHECKS}/*"))):
        found = os.stat(path)
        if not os.access(path, os.X_OK):
            continue
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield f"{path} is not run: others than root may write it"
            continue
        try:
            done = subprocess.run([path], capture_output=True, timeout=_ONE_CHECK, check=False, cwd="/")
        except (OSError, subprocess.TimeoutExpired) as error:
            yield f"{os.path.basename(path)}: {error}"
            continue
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            yield f"{os.path.basename(path)}: {said[-1] if said else f'ended with {done.returncode}'}"


def lost(root: Root) -> bool:
    """Whether a boot that ended in an emergency was a trial; then its reason is kept. Raises NodeError, OSError.

    Neither /var nor an ESP need be mounted then; where none can be read, what was remembered counts.
    """
    here = layout.require(root)
    layout.apart()
    esps: list[str] = []
    _said(lambda: esps.extend(layout.esps()))
    if not on_trial(root, esps, here.slot):
        return False
    try:
        systems.note_trial(root, here.slot, "it ended in an emergency before its services were started")
    except (NodeError, OSError) as error:
        sys.stdout.write(f"the reason could not be kept: {error}\n")
    return True
