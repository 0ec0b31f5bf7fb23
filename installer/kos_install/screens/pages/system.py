# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node is called, how it counts time, and which keys its keyboard has."""

from __future__ import annotations

import re

from .. import lists
from ..model import Option, Page, Question, Session, ask
from ..words import _

USUAL = {"hostname": "kos", "timezone": "UTC", "locale": "C.UTF-8", "keyboard": "us"}
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def page(_session: Session) -> Page:
    """Host name, time zone, locale, keyboard."""
    return Page(
        "system",
        _("System"),
        _("What this machine is called, and where it stands."),
        _(
            "The host name is what the network calls this machine: small letters, digits and hyphens. The locale"
            " decides how programs write dates and sort names; C.UTF-8 is right for a server. Press Enter on a long"
            " list to search in it by typing."
        ),
        [
            ask("hostname", _("Host name"), "text", USUAL["hostname"], check=_hostname),
            ask("timezone", _("Time zone"), "pick", USUAL["timezone"], options=_plain(lists.timezones())),
            ask("locale", _("Locale"), "pick", USUAL["locale"], options=_plain(lists.locales())),
            keyboard(),
        ],
    )


def keyboard() -> Question:
    """The layout of the keyboard: of this console at once, of the node later."""
    names = lists.keyboards().items()
    options = [Option(code, name if name == code else f"{name} ({code})") for code, name in names]
    return ask("keyboard", _("Keyboard"), "pick", USUAL["keyboard"], options=options)


def _plain(names: tuple[str, ...]) -> list[Option]:
    return [Option(name, name) for name in names]


def _hostname(text: str) -> str:
    return (
        "" if _HOSTNAME.fullmatch(text) else _("small letters, digits and hyphens, at most 63, such as kos or node-7")
    )
