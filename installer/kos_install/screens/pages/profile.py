# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node is for: the profile, what it brings, and whether this machine is big enough."""

from __future__ import annotations

from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.hardware import memory

from ...storage.sizes import human
from .. import offers
from ..draft import Draft
from ..model import Option, Page, Question, Session
from ..said import said
from ..words import _

DEFAULT = "personal_node"


def chosen(session: Session) -> str:
    """The profile that was chosen; else the one that the medium was made for."""
    return str(session.draft.get("profile") or session.record.get("profile") or DEFAULT)


def page(session: Session) -> Page:
    """Ask for the profile, and for leave where the machine is too small for it."""
    medium = session.record.get("profile", DEFAULT)
    # What the medium was made for comes first: it has all of it, and needs no network.
    names = sorted(offers.profiles(), key=lambda name: (name != medium, name))
    options = [Option(name, _option(name)) for name in names]

    def write(draft: Draft, value: str) -> None:
        if value != chosen(session):
            draft.put("settings.services", None)
            draft.put("accept_shortfall", None)
        draft.put("profile", None if value == medium else value)

    return Page(
        "profile",
        _("Profile"),
        _("What shall this machine be? The first profile is the one that this medium carries in full.")
        if session.record
        else _("What shall this machine be?"),
        _(
            "A profile is a whole node as one file: its services, how they are kept safe, what the machine must have."
            " The medium carries everything of the profile it was made for; another one may fetch what is missing from"
            " the network. Below the list is what the profile brings here, and what this machine lacks, if anything."
        ),
        [Question("profile", _("Profile"), "choice", lambda _draft: chosen(session), write, options), _accept(session)],
        brings,
        lambda draft: short(session, draft),
        field="profile",
        slow=True,
    )


def _accept(session: Session) -> Question:
    def write(draft: Draft, value: bool) -> None:
        draft.put("accept_shortfall", lacking(session) if value else None)

    return Question(
        "accept_shortfall",
        _("Install though it is too small"),
        "switch",
        lambda draft: bool(draft.get("accept_shortfall")),
        write,
        shown=lambda draft: bool(draft.get("accept_shortfall") or lacking(session)),
    )


def lacking(session: Session) -> list[str]:
    """What this machine has too little of for the profile, by name."""
    try:
        planned = offers.planned(session.draft, session.machine, chosen(session))
    except ConfigurationError:
        return []
    return [str(row.what) for row in planned.shortfalls]


def short(session: Session, draft: Draft) -> str:
    """What this machine lacks and nobody has accepted, so that nothing could be installed; empty where it is enough."""
    missing = [_(what) for what in lacking(session) if what not in draft.get("accept_shortfall", [])]
    if not missing:
        return ""
    text = _("too small for this profile ({what}): take another profile, or mark that it is installed nevertheless")
    return text.format(what=", ".join(missing))


def brings(session: Session) -> str:
    """What would run here, and what the machine lacks."""
    try:
        planned = offers.planned(session.draft, session.machine, chosen(session))
    except ConfigurationError as error:
        return said(str(error))
    names = ", ".join(service.name for service in planned.plan.services)
    lines = [totals(session), _("Brings: {names}").format(names=names)]
    missing = ", ".join(dict.fromkeys(row.requested for row in planned.plan.unavailable))
    return "\n".join([*lines, *([_("Not in this release: {names}").format(names=missing)] if missing else [])])


def totals(session: Session) -> str:
    """What the services need together, and what this machine has."""
    planned = offers.planned(session.draft, session.machine, chosen(session))
    needs, here = planned.plan.requires, session.machine
    lines = [
        _("Too small: {what}: {need} needed, {have} here.").format(
            what=_(row.what), need=said(row.need), have=said(row.have)
        )
        for row in planned.shortfalls
    ] or [_("This machine is big enough.")]
    text = _("Needs at least {needs} of the {has} of memory, and {disk} of disk.")
    disk = human(needs["disk_mb"] << 20)
    lines.append(text.format(needs=memory(needs["memory_mb"]), has=memory(here.memory_mb), disk=disk))
    return "\n".join(lines)


def _option(name: str) -> str:
    about = {
        "browser": _("serves the browsers on this machine"),
        "browser_extension": _("serves an assistant in the browser"),
        "cluster": _("one of several machines, for many"),
        "desktop": _("one person, on a desktop computer"),
        "developer_node": _("developing agents, with all insight"),
        "development": _("developing on one machine, small"),
        "embedded": _("a small device with 1 GB of memory"),
        "enterprise": _("an organisation, audited"),
        "federation_node": _("a public member of a federation"),
        "personal_node": _("one person or a family, always on"),
        "server": _("a team or a home network"),
        "standalone": _("one person, without other machines"),
    }
    return f"{name:<18}{about.get(name, '')}".rstrip()
