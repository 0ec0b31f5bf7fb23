# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of an install, in their order."""

from __future__ import annotations

from collections.abc import Callable

from ..model import Page, Session
from ..words import _
from . import disk, encryption, network, person, profile, services, system, welcome

PAGES: tuple[Callable[[Session], Page], ...] = (
    welcome.page,
    profile.page,
    disk.page,
    encryption.page,
    network.page,
    person.page,
    system.page,
    services.page,
)


# Seconds, where a profile is looked at for the first time.
SLOW = (profile.page, services.page)


def making(make: Callable[[Session], Page]) -> str:
    """What is worked on while a page is made."""
    slow: dict[Callable[[Session], Page], str] = {
        profile.page: _("Working out what the profile brings here"),
        services.page: _("Working out which services run here"),
    }
    return slow.get(make, _("Making the page"))
