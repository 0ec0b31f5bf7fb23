# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry out a plan through its journal: skip what is done and stands, do the rest, and be able to go on after anything.

What comes before the journal (its own partition has to be made first) is done again from the start: nothing that is
kept was made yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from .. import beforehand, ready
from ..actions import disks, mount, partitions, shared, table, wipe
from ..actions import journal as journal_action
from ..actions.context import Context
from ..errors import ApplyFailed
from ..storage.actions import Action, Journal, Plan, Table
from . import journal as journals

LOCK = Path("/run/kos/install.lock")
# These made the disk what it is. Where one does not stand any more, it is somebody else's disk now.
_ONCE = ("release", "wipe", "table", "journal")

Modules = Callable[[str], ModuleType]


def install(context: Context) -> None:
    """Carry out the plan of a context; where a journal of this very plan is, from where it stopped.

    Success or not, nothing of the target is held afterwards. Raises ApplyFailed with one sentence.
    """
    with exclusively(), _tidy(context):
        ready.check(context.plan)
        begun = _begun(context)
        if begun is None:
            beforehand.check(context)
        journal = apply(context, context.plan.actions, begun)
        if journal is not None and journal.finished:
            # It has served, and the hash of a password is among the answers: that is not left in clear.
            journals.finish(journal)


def apply(
    context: Context, actions: list[Action], journal: journals.Journal | None, modules: Modules = table.module
) -> journals.Journal | None:
    """Do the actions in order; `journal` is None as long as there is none. The journal that there is at the end.

    Raises ApplyFailed, OSError.
    """
    anew = False
    for action in actions:
        module = modules(action.kind)
        done = journal is not None and not anew and journal.done(action)
        if done and module.stands(context, action):
            getattr(module, "again", _nothing)(context, action)
            context.action(action.id, "skipped")
            continue
        if done and action.kind in _ONCE:
            raise ApplyFailed(
                "the disk is not as this install made it: somebody changed it since; begin a new install instead"
            )
        # What was built on it is not believed any more.
        anew = anew or not getattr(module, "VOLATILE", False)
        journal = _do(context, action, module, journal)
    return journal


def _do(
    context: Context, action: Action, module: ModuleType, journal: journals.Journal | None
) -> journals.Journal | None:
    context.action(action.id, "started")
    if journal is not None:
        journal.append(action, "started")
    module.perform(context, action)
    if journal is not None:
        journal.append(action, "done")
    elif isinstance(action, Journal):
        journal = journals.read(journal_action.device(context, action))
    context.action(action.id, "done")
    return journal


def begun() -> tuple[list[journals.Journal], list[str]]:
    """The installs that were begun on some disk and are not finished; and what is wrong with disks that may have one.

    One bad disk keeps nobody from installing to another. Raises ApplyFailed where no disk can be looked at.
    """
    found, faults = [], []
    for device in disks.journals():
        try:
            journal = journals.read(device)
            if not journal.finished:
                found.append(journal)
        except journals.NoJournal:
            continue
        except (OSError, ValueError, LookupError, TypeError) as error:
            faults.append(f"whether an install was begun in {device} cannot be read ({error})")
    return found, faults


def abandon(journal: journals.Journal) -> None:
    """Give up an install: what it encrypted cannot be opened any more, and where it was, there is room again.

    Raises ApplyFailed.
    """
    with exclusively():
        mount.close_all(journal.plan, Context.target, _quiet)
        shared.remove(journal.plan, _quiet)
        tables = [one for one in journal.plan.actions if isinstance(one, Table)]
        for table_ in tables:
            _unmake(table_, journal.device)
        # Last, so that whatever happens before can be done again.
        journals.erase(journal.device)
        for table_ in tables:
            partitions.remove(disks.find(table_.disk), {one.uuid.lower() for one in table_.make}, _quiet)


def _unmake(action: Table, journal: Path) -> None:
    """Wipe the partitions that were made, but the journal's, and take them out of the table."""
    made = {one.uuid.lower() for one in action.make}
    disk = disks.find(action.disk)
    gone = [node for node in disk.partitions if node.part_uuid in made and Path(node.path) != journal]
    for node in gone:
        wipe.wipe(node, _quiet)
    partitions.remove(disk, {node.part_uuid for node in gone}, _quiet)


@contextlib.contextmanager
def exclusively() -> Iterator[None]:
    """No second install beside this one. Raises ApplyFailed at once where there is one."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ApplyFailed("another install is at work on this machine: wait for it, or stop it") from error
        yield
    finally:
        os.close(descriptor)


def _begun(context: Context) -> journals.Journal | None:
    device = next((one.device for one in context.plan.actions if isinstance(one, Journal)), None)
    if device is None or not os.path.exists(device):
        return None
    try:
        found = journals.read(Path(os.path.realpath(device)))
    except journals.NoJournal:
        return None
    if found.plan != context.plan or found.finished:
        return None
    if found.image == ready.image():
        return found
    if context.confirmed and not _keeps(context.plan):
        context.log("what was begun from another medium is not gone on with: all of it is made anew")
        return None
    raise ApplyFailed(
        "this install was begun from another medium: start the machine from that one to resume, or begin a new install"
    )


def _keeps(plan: Plan) -> bool:
    return any(isinstance(one, Table) and not one.wipe for one in plan.actions)


@contextlib.contextmanager
def _tidy(context: Context) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _let_go(context)
        raise ApplyFailed(
            f"the machine refused ({error}); what was done stays, and resuming goes on from there"
        ) from error
    except BaseException:
        _let_go(context)
        raise
    mount.close_all(context.plan, context.target, context.log)


def _let_go(context: Context) -> None:
    """What cannot be let go now does not hide why the install stopped; the next try lets it go first."""
    try:
        mount.close_all(context.plan, context.target, context.log)
    except ApplyFailed as error:
        context.log(str(error))


def _nothing(_context: Context, _action: Action) -> None:
    """Most of what was done outlives a start of the machine."""


def _quiet(_text: str) -> None:
    """Nobody reads it."""
