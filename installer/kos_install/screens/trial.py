# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as it would be if what is not answered yet were answered: for the picture beside the choice of disks."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError, Place
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse

from ..answers import FORGOTTEN, Answers
from ..errors import Unplannable
from ..storage import picture as pictures
from ..storage.plan import plan
from .model import Session
from .pages import disk

# Only a trial ever has it, and nobody could log in with it.
_SOMEBODY = {"name": "kos", "password_hash": FORGOTTEN}


def picture(session: Session) -> str:
    """What the disks hold before and after. Raises Unplannable."""
    return pictures.picture(session.machine, plan(answers(session), session.machine))


def answers(session: Session) -> Answers:
    """The answers about disks, with the rest as it is when nobody says otherwise. Raises Unplannable."""
    draft = copy.deepcopy(session.draft)
    disk.settle(draft, session.machine)
    data: dict[str, Any] = {"version": 1, "user": _SOMEBODY, "storage": draft.get("storage", {})}
    try:
        return parse(Answers, data, lambda _path: Place("answers"))
    except ConfigurationError as error:
        raise Unplannable(str(error)) from error
