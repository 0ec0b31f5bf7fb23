# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What profiles are measured and resolved by, of a machine that is not a node yet."""

from __future__ import annotations

from ansible_collections.kind.kos.plugins.plugin_utils.hardware import Facts, OperatingSystem

from .model import Machine


def facts(machine: Machine, disk_gb: int) -> Facts:
    """The facts of the node that this machine would be; `disk_gb`: of the disk that keeps its data."""
    return Facts(
        os=OperatingSystem(id="debian", version="13"),
        architecture=machine.architecture,
        cpu=machine.cpu,
        memory_mb=machine.memory_mb,
        disk_gb=disk_gb,
        gpus=machine.gpu,
    )
