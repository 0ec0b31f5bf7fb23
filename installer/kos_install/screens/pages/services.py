# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services run: those of the profile, and what is added or dropped, with what all of them need."""

from __future__ import annotations

from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.hardware import memory

from .. import offers
from ..draft import Draft
from ..model import Option, Page, Question, Session
from ..offers import Offer
from ..said import said
from ..words import _
from .profile import chosen, totals


def page(session: Session) -> Page:
    """Ask for the services, those of the profile chosen already."""
    profile, environment = chosen(session), session.draft.get("environment")
    found = offers.offers(session.machine, profile, environment)
    options = [_option(one) for one in found]
    asked = [f"{one.capability}/{one.name}" for one in found if one.asked]

    def read(draft: Draft) -> list[str]:
        return list(draft.scratch.get("services", {}).get(profile, asked))

    def write(draft: Draft, value: list[str]) -> None:
        draft.scratch.setdefault("services", {})[profile] = value
        rows = [(capability, name) for capability, _slash, name in (one.partition("/") for one in value)]
        draft.put("settings.services", offers.changed(profile, rows, environment) or None)

    return Page(
        "services",
        _("Services"),
        _("What shall run? What the profile asks for is marked; add or drop with the space bar, or leave it as it is."),
        _(
            "Each line is a service, the memory that it takes at least, and what it does; behind an arrow is what runs"
            " in its place on this machine, and the memory is of that. Below the list is what all of them need"
            " together. What one of them needs comes with it. All of this can be changed later, too."
        ),
        [Question("services", _("Services"), "many", read, write, options)],
        _added_up,
        slow=True,
    )


def _option(one: Offer) -> Option:
    name = f"{one.name} -> {one.instead}" if one.instead else one.name
    size = memory(one.memory_mb) if one.memory_mb else ""
    label = f"{name:<27} {size:>7}  {said(one.summary)}"
    refused = _("it does not run on this machine, or not in this release") if one.instead is None else ""
    return Option(f"{one.capability}/{one.name}", label, refused)


def _added_up(session: Session) -> str:
    try:
        return totals(session)
    except ConfigurationError as error:
        return said(str(error))
