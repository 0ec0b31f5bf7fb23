# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs is one signed generation, the same on every machine, and it is committed."""

from __future__ import annotations


def test_it_is_committed_and_nothing_is_under_way(seen):
    generation = seen["generation"]
    last = [row for row in generation["history"] if row["generation"] == generation["number"]][-1]
    assert (last["result"], last["id"]) == ("committed", generation["id"])
    under_way = {key: generation[key] for key in ("open", "pending", "deadlines", "half_made")}
    assert under_way == {"open": False, "pending": False, "deadlines": [], "half_made": []}


def test_its_name_is_that_of_its_content(seen):
    """The Merkle root computed from the disk is what was committed, and what the node says of itself."""
    assert seen["generation"]["id"] == seen["status"]["generation"]["id"]
    assert len(seen["generation"]["id"]) == 64


def test_somebody_trusted_has_signed_it(seen):
    generation = seen["generation"]
    assert generation["signed_by"] == seen["status"]["generation"]["signed_by"] != ""
    # The signature is of this generation and of no other.
    assert generation["forged_by"] == ""


def test_it_holds_nothing_of_this_machine(seen):
    assert seen["generation"]["own_words"] == []


def test_every_file_of_it_is_in_its_place(seen):
    assert seen["generation"]["missing"] == []


def test_the_ledger_knows_what_it_brought(seen, manifest):
    ledger = seen["ledger"]
    assert sorted(ledger["files"]) == sorted(row["path"] for row in manifest["files"])
    assert sorted(ledger["units"]) == sorted(row["name"] for row in manifest["units"])
    assert set(manifest["users"]) <= set(ledger["users"])
