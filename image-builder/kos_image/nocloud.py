# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A NoCloud seed: what a virtual machine made of our image is told when it starts for the first time.

Format: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid5

from ansible_collections.kind.kos.plugins.plugin_utils import cloud_init, public_keys
from ansible_collections.kind.kos.plugins.plugin_utils.cloud_init import Machine, Node
from ansible_collections.kind.kos.plugins.plugin_utils.documents import read_text

from . import filesystems
from .asked import Asked
from .errors import UsageError
from .toolbox import Toolbox

LABEL = "CIDATA"
# Where cloud-init finds a seed that came with the disk itself.
ON_A_DISK = "var/lib/cloud/seed/nocloud"


def files(asked: Asked) -> dict[str, str]:
    """The seed's files by name. Raises UsageError, OSError."""
    machine = Machine(tuple(map(_key, asked.ssh_keys)), asked.hostname or cloud_init.HOSTNAME)
    if said := cloud_init.fault(machine):
        raise UsageError(said)
    return cloud_init.seeded(machine, Node(asked.profile, asked.layers.get("env")) if _deploys_itself(asked) else None)


def _deploys_itself(asked: Asked) -> bool:
    """Layers of a site or a user are files of the builder's, and not on the image: a controller deploys those."""
    return not any(asked.layers.get(name) for name in ("site", "user", "configs"))


def _key(path: Path) -> str:
    try:
        return public_keys.checked(read_text(path))
    except ValueError as error:
        raise UsageError(f"{path} is {error}") from error


def lay(asked: Asked, folder: Path) -> None:
    """Write the seed where a disk carries its own, below `folder`. Raises OSError."""
    seed = folder / ON_A_DISK
    seed.mkdir(parents=True)
    for name, text in files(asked).items():
        (seed / name).write_text(text)


def write(box: Toolbox, asked: Asked, seed: UUID, work: Path, target: Path) -> None:
    """Write the seed as a FAT file system labelled CIDATA; `work` is an empty folder. Raises ImageError, OSError."""
    for name, text in files(asked).items():
        (work / name).write_text(text)
    filesystems.fat(box, work, LABEL, uuid5(seed, "nocloud"), target)
