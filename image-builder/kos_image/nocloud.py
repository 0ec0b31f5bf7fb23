# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A NoCloud seed: what a virtual machine made of our image is told when it starts for the first time.

Format: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from ansible_collections.kind.kos.plugins.plugin_utils import cloud_init, public_keys
from ansible_collections.kind.kos.plugins.plugin_utils.cloud_init import Machine, Node
from ansible_collections.kind.kos.plugins.plugin_utils.documents import read_text
from kos_install.actions import networks
from kos_install.actions.initrds import FOLDER
from kos_install.actions.target import File
from kos_install.answers import Answers, Interface

from . import filesystems
from .asked import Asked
from .errors import UsageError
from .toolbox import Toolbox

LABEL = "CIDATA"
# Where cloud-init finds a seed that came with the disk itself.
ON_A_DISK = "var/lib/cloud/seed/nocloud"
# Not the one of the running system, whose key is another: SSH would warn of somebody in the middle.
_UNLOCK, _UNLOCK_PORT = FOLDER.lstrip("/"), 2222
_USUAL, _CABLES = "en*", "e*"
_CLOUD_NETWORK = "etc/cloud/cloud.cfg.d/91_kos_network.cfg"
_BUILT_IN = ("C", "POSIX", "C.UTF-8")


@dataclass(frozen=True)
class Seed:
    """What a machine is told; `networks` are those of the answers, where they say more than DHCP by cable.

    `unlock`: the keys that may open a locked card over SSH, and the port for that.
    """

    machine: Machine
    networks: tuple[Interface, ...] = ()
    unlock: tuple[tuple[str, ...], int] | None = None


def seed(asked: Asked) -> Seed:
    """What somebody asked for. Raises UsageError, OSError."""
    if asked.answers:
        return _answered(asked, asked.answers)
    keys = tuple(map(_key, asked.ssh_keys))
    locked = asked.output == "pi" and not asked.in_clear
    machine = Machine(keys, asked.hostname or cloud_init.HOSTNAME)
    return Seed(machine, unlock=(keys, _UNLOCK_PORT) if locked else None)


def _answered(asked: Asked, answers: Answers) -> Seed:
    keys, wish = tuple(answers.user.ssh_keys), answers.encryption.remote_unlock
    unlock = (tuple(wish.ssh_keys), wish.port) if wish else (keys, _UNLOCK_PORT)
    machine = Machine(
        keys,
        answers.hostname,
        answers.user.name,
        full_name=answers.user.full_name,
        locale="" if answers.locale in _BUILT_IN else answers.locale,
        timezone="" if answers.timezone == "UTC" else answers.timezone,
    )
    told = tuple(answers.network) if "network" in answers.model_fields_set else ()
    return Seed(machine, told, None if asked.in_clear else unlock)


def files(asked: Asked) -> dict[str, str]:
    """The seed's files by name. Raises UsageError, OSError."""
    machine = seed(asked).machine
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


def laid(asked: Asked) -> dict[str, str]:
    """What lies over the root of a disk that carries its own seed, by path. Raises UsageError, OSError."""
    told = seed(asked)
    found = {f"{ON_A_DISK}/{name}": text for name, text in files(asked).items()}
    if told.networks:
        # systemd-networkd reads what the installer would write; the cards of a Pi are called eth0 and so on.
        named = [one.model_copy(update={"match": _CABLES}) if one.match == _USUAL else one for one in told.networks]
        entries = [entry for entry in networks.entries(named, {}) if isinstance(entry, File)]
        found |= {entry.path.lstrip("/"): entry.content for entry in entries}
        found[_CLOUD_NETWORK] = "network: {config: disabled}\n"
    if told.unlock:
        keys, port = told.unlock
        found[f"{_UNLOCK}/authorized_keys"] = "".join(f"{key}\n" for key in keys)
        found[f"{_UNLOCK}/port"] = f"{port}\n"
    return found


def lay(asked: Asked, folder: Path) -> None:
    """Write all of it below `folder`. Raises UsageError, OSError."""
    for name, text in laid(asked).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def write(box: Toolbox, asked: Asked, seed: UUID, work: Path, target: Path) -> None:
    """Write the seed as a FAT file system labelled CIDATA; `work` is an empty folder. Raises ImageError, OSError."""
    for name, text in files(asked).items():
        (work / name).write_text(text)
    filesystems.fat(box, work, LABEL, uuid5(seed, "nocloud"), target)
