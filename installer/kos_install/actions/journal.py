# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The partition of the journal is there; `engine.apply` begins the journal in it."""

from __future__ import annotations

from pathlib import Path

from .. import ready
from ..engine import journal
from ..storage.actions import Journal, Table
from . import disks
from .context import Context


def perform(context: Context, action: Journal) -> None:
    """Begin the journal: all before it is done. Raises ApplyFailed, OSError."""
    actions = context.plan.actions
    before = actions[: [one.id for one in actions].index(action.id) + 1]
    journal.begin(device(context, action), context.plan, context.answers, before, ready.image())


def stands(context: Context, action: Journal) -> bool:
    """Whether the journal there is of this plan."""
    try:
        return journal.read(device(context, action)).plan == context.plan
    except journal.NoJournal:
        return False


def device(context: Context, action: Journal) -> Path:
    """Its partition. Raises ApplyFailed."""
    targets = [one.disk for one in context.plan.actions if isinstance(one, Table)]
    return disks.partition(action.device, targets)
