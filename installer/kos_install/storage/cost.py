# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one guess at the passphrase costs: as much as the machine that is installed can afford at every start."""

from __future__ import annotations

from ansible_collections.kind.kos.plugins.module_utils.node.machine import luks
from ansible_collections.kind.kos.plugins.plugin_utils.hardware import memory

from ..answers import ARGON2ID_FLOOR_KIB, Argon2id
from ..hardware.model import Machine


def argon2id(machine: Machine, asked: Argon2id | None) -> Argon2id:
    """What to force on cryptsetup."""
    return asked or Argon2id(**vars(luks.affordable(machine.memory_mb, machine.cpu)))


def unaffordable(machine: Machine, asked: Argon2id, test: bool) -> list[str]:
    """Why what was asked for is refused: too cheap, but for a test, or more than the machine has."""
    if asked.memory_kib < ARGON2ID_FLOOR_KIB and not test:
        return [
            f"encryption.argon2id: {asked.memory_kib} KiB makes guessing too cheap; a medium not built for tests takes"
            f" {ARGON2ID_FLOOR_KIB} and more: leave the key away, and the machine's memory decides"
        ]
    if asked.memory_kib > machine.memory_mb * 1024 // 2:
        return [
            f"encryption.argon2id: with {memory(machine.memory_mb)} of memory this machine could not open a disk that"
            f" needs {asked.memory_kib} KiB: leave the key away, and the machine's memory decides"
        ]
    return []
