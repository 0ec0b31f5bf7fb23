# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From answers and a machine to a plan, or to a refusal with its reasons."""

from __future__ import annotations

from kos_install.answers import Answers
from kos_install.hardware.model import Disk, Machine
from kos_install.storage.plan import plan

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 somebody@somewhere"
VM = Machine(disks=[Disk(path="/dev/vda", size=12 * 10**9, serial="abc")])


def answers(**more):
    return Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}, **more})


def test_a_whole_disk():
    made = plan(answers(), VM)
    assert [action.id for action in made.actions] == [
        "release", "wipe", "table", "journal", "luks-kos-root", "btrfs-kos-root", "fat-kos-esp",
        "mount", "unpack", "configure", "converge", "boot", "verify", "finish",
    ]  # fmt: skip
    assert [part.label for part in made.actions[2].make] == ["kos-esp", "kos-journal", "kos-root"]


def test_the_same_twice_gives_the_same_plan():
    assert plan(answers(), VM).digest() == plan(answers(), VM).digest()
    assert plan(answers(), VM).digest() != plan(answers(hostname="other"), VM).digest()
