# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an install says where it cannot go on: one sentence, with the fix."""

from __future__ import annotations

from ansible_collections.kind.kos.cli.exits import Exit


class InstallError(Exception):
    """The sentence is its text; `exit` is the exit code of the command."""

    exit = Exit.UNEXPECTED


class UsageError(InstallError):
    """What was asked for does not exist or does not fit together."""

    exit = Exit.USAGE


class Unplannable(InstallError):
    """These answers and this machine do not fit together: no disk, two disks, too small, no TPM.

    `faults` has every sentence, `str` all of them, one a line.
    """

    exit = Exit.PREFLIGHT_FAILED

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class ApplyFailed(InstallError):
    """An action failed; what was done so far is in the journal, and the next start resumes it."""

    exit = Exit.NOT_REVERTED


class VerifyFailed(ApplyFailed):
    """The installed disk is not as it was asked for; it was left without a boot entry."""
