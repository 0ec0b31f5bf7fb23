# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong in the lab, as sentences for a person."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do what was asked. `exit_code` is what a command ends with."""

    exit_code = 1


class UsageError(LabError):
    """What was asked for does not exist or is not well formed."""

    exit_code = 2


class HostError(LabError):
    """This machine lacks something the lab needs."""

    exit_code = 4
