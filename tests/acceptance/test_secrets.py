# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are sealed, and lie in clear nowhere."""

from __future__ import annotations

from onnode import told


def test_secrets_are_sealed_and_nobody_else_reads_them(seen, manifest):
    for entry in manifest["secrets"]:
        sealed = seen["paths"][f"/var/lib/kos/secrets/{entry['service']}.{entry['name']}.cred"]
        assert sealed and (sealed["mode"], sealed["user"]) == (0o600, "root"), entry
    assert seen["paths"]["/var/lib/kos/secrets"]["mode"] == 0o700
    for row in manifest["files"]:
        if "sealed" in row:
            assert seen["paths"][row["path"]]["mode"] == 0o600, row["path"]


def test_the_identity_is_private(seen):
    assert seen["paths"]["/var/lib/kos/identity/node"]["mode"] == 0o600


def test_no_secret_lies_in_clear(host, seen, manifest):
    """Not in the journal, a log, a generation, the arguments of a process or a file that was forgotten."""
    searched = told(host, "leaks.py")
    # What was put there to be found was found, in each kind of place.
    assert searched["canary"] == ["a file", "the arguments of a process", "the journal"]
    assert set(searched["secrets"]) >= {f"{row['service']}.{row['name']}" for row in manifest["secrets"]}
    operators = {f"{row['service']}.{row['name']}" for row in manifest["secrets"] if not row["length"]}
    assert set(searched["too_short"]) <= operators
    assert searched["found"] == {}
