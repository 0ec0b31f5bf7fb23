# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person needs to know of a machine that was just installed."""

from __future__ import annotations

from typing import Any

from ..actions.context import Context

# Under this name of `Context.made` whoever makes the host keys leaves their fingerprint.
FINGERPRINT = "ssh_fingerprint"


def outcome(context: Context) -> dict[str, Any]:
    """What a person needs to know of the machine that was made."""
    fixed = [address for one in context.answers.network for address in one.addresses]
    steps = ["Pull the medium out, or choose the disk in the firmware, when the machine starts."]
    steps.append("Copy /var/lib/kos-recovery to another place: with a copy of its header a spoilt disk opens again.")
    if context.answers.encryption.tpm2:
        steps.append("The TPM is enrolled on the first start on which Secure Boot is enforced; kai status says so.")
    if context.answers.encryption.secure_boot == "own":
        steps.append("The first start enrols this machine's own Secure Boot keys, and starts once more.")
    return {
        "hostname": context.answers.hostname,
        "addresses": fixed,
        "fingerprint": context.made.get(FINGERPRINT, ""),
        "next": steps,
    }
