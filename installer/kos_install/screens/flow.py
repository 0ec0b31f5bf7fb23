# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every kind of screen does between the pages and the engine."""

from __future__ import annotations

import copy
from typing import Any

from .model import Session
from .pages import disk, network, person, profile, system
from .words import _

# A secret that becomes a hash here and goes no further.
_OWN = {person.LOGIN}
Request = tuple[str, dict[str, Any]]


def settle(session: Session) -> None:
    """Write down as answers what the pages only remember."""
    disk.settle(session.draft, session.machine)
    person.settle(session.draft)


def settled(session: Session) -> bool:
    """Whether that would be quick: no password has to be hashed, which takes a second or more."""
    return person.hashed(session.draft)


def chosen(session: Session) -> dict[str, Any]:
    """The answers for a file: what stood there already, and was left as it was, is said in words as well."""
    settle(session)
    whole = copy.deepcopy(session.draft)
    for path, value in (("profile", profile.chosen(session)), *system.USUAL.items()):
        whole.put(path, whole.get(path, value))
    if (only := disk.taken(session)) and not whole.get("storage.disk"):
        whole.put("storage.disk", disk.selector(only, session.machine))
    return whole.answers


def recall(session: Session) -> None:
    """Take up answers that came from another screen."""
    disk.recall(session.draft, session.machine)


def secrets(session: Session) -> list[Request]:
    """The secrets that these answers need, for the engine."""
    draft = session.draft
    needed = {"passphrase"}
    needed |= {"tpm2_pin"} if draft.get("encryption.tpm2") else set()
    needed |= {name for name in draft.secrets if name.startswith("wifi:")} if network.kind(draft) == "wifi" else set()
    given = {name: value for name, value in draft.secrets.items() if name in needed - _OWN and value}
    return [("secret", {"name": name, "value": value}) for name, value in given.items()]


def answering(session: Session) -> list[Request]:
    """All that the engine needs to plan."""
    return [("answer", {"answers": session.draft.answers}), *secrets(session), ("plan", {})]


def interrupted(found: dict[str, Any]) -> str:
    """What was left of an install."""
    text = _(
        "An install onto {disk} was interrupted after {done} of {total} steps."
        " Its answers are known, its secrets are not."
    )
    return text.format(disk=found["disk"], done=found["done"], total=found["total"])
