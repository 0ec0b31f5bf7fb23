# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whenever the power goes during a backup, one more run stores a snapshot, its check is good, and older ones come back.

Two backups into a repository on the node's own disk are recorded write by write, and what retention lets go after each.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import backupcrashes
import crashtable
import diskmachine
import mediums
import pytest

from ansible_collections.kind.kos.lab import media_tree, qemu

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=mediums.unavailable() or "a lab is here"),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no FUSE here: no disk can be recorded"),
]

STATES, OF_A_CONTROL = (310, 40) if crashtable.FULL else (40, 20)


@pytest.fixture(scope="module")
def media():
    return mediums.Media(f"backups{os.getpid()}")


@pytest.fixture(scope="module")
def tree(media):
    return diskmachine.ensure(media.lab, media.apt) / "tree"


@pytest.fixture
def crashes(media, tree, tmp_path):
    """Judges so many crashes of backups, and prints their table."""

    def judged(title, number, sabotage="", only=()):
        tools = media_tree.ensure(media.lab, "amd64", media.apt, print) / qemu.TREE
        with tempfile.TemporaryDirectory(prefix="backups-", dir=tree / "tmp") as name:
            recorded = backupcrashes.Debian(tree, Path(name)).record(tools, tmp_path, sabotage)
        return crashtable.noted(backupcrashes.judged(title, tree, recorded, number, crashtable.SEED, only))

    return judged


def test_one_more_run_stores_a_snapshot_and_older_ones_come_back(crashes):
    table = crashes("two backups", STATES)
    assert not table.faults, table.faults
    assert table.again.total() >= STATES and table.torn > STATES / 3


def test_the_harness_sees_what_it_is_there_to_see(crashes):
    """With copies in the place of what restic had stored and synced, for which nobody waits."""
    table = crashes("control, no sync", OF_A_CONTROL, "no sync", ["sabotaged"])
    assert table.faults and {what for _state, what in table.judged} >= {backupcrashes.BROKEN}
