# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers in a few lines, as a person would say them."""

from __future__ import annotations

from .model import Session
from .pages import network, profile
from .text import table
from .words import _


def summary(session: Session) -> str:
    """Profile, name, user, encryption, network."""
    draft = session.draft
    locks = [_("passphrase")]
    locks += [_("recovery key")] if draft.get("encryption.recovery_key", True) else []
    locks += ["TPM 2"] if draft.get("encryption.tpm2") else []
    locks += ["FIDO2"] if draft.get("encryption.fido2") else []
    locks += ["Tang"] if draft.get("encryption.tang") else []
    entries = [_("password")] if draft.get("user.password_hash") else []
    keys = len(draft.get("user.ssh_keys", []))
    entries += [_("SSH keys: {count}").format(count=keys)] if keys else []
    ways = {"dhcp": "DHCP", "static": network.value(draft, "addresses"), "wifi": "Wi-Fi", "none": _("no network")}
    rows = [
        (_("Profile"), profile.chosen(session)),
        (_("Host name"), draft.get("hostname", "kos")),
        (_("User"), f"{draft.get('user.name', 'kos')} ({', '.join(entries)})"),
        (_("Opens with"), ", ".join(locks)),
        (_("Network"), ways[network.kind(draft)]),
    ]
    return table(rows)
