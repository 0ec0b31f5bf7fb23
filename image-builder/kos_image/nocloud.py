# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A NoCloud seed: what a virtual machine made of our image is told when it starts for the first time.

Format: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any
from uuid import UUID, uuid5

import yaml

from ansible_collections.kind.kos.plugins.plugin_utils.documents import read_text

from . import bundled, filesystems
from .asked import Asked
from .errors import UsageError
from .toolbox import Toolbox

LABEL = "CIDATA"
HOSTNAME = "kos"
# Where cloud-init finds a seed that came with the disk itself.
ON_A_DISK = "var/lib/cloud/seed/nocloud"
USER = "kos"
# Where contents.py puts them on the disk of a node.
_BUNDLE = f"/var/lib/kos-media/{bundled.FILE}"
_MAKER = "/usr/share/kos/keys/maker.pub"
# The machine deploys itself: its own key signs, and that of whoever made the image proves the bundle.
_DEPLOY = """\
set -eu
export HOME=/root LC_ALL=C.UTF-8
kai trust key >/run/kos-own.pub
kai trust add this-machine /run/kos-own.pub
kai trust add maker {maker}
exec kai deploy --profile {profile} {environment}--bundle {bundle}
"""


def files(asked: Asked) -> dict[str, str]:
    """The seed's files by name. Raises UsageError, OSError."""
    if not asked.ssh_keys:
        raise UsageError("nobody could log in: name a public key with --ssh-key ~/.ssh/id_ed25519.pub")
    user = _user_data(asked, [_key(path) for path in asked.ssh_keys])
    # Another seed is another machine to cloud-init, which then begins anew.
    instance = uuid5(UUID(int=0), user)
    meta = yaml.safe_dump({"instance-id": f"kos-{instance}", "local-hostname": asked.hostname or HOSTNAME})
    return {"user-data": user, "meta-data": meta}


def _user_data(asked: Asked, keys: Sequence[str]) -> str:
    data: dict[str, Any] = {
        "hostname": asked.hostname or HOSTNAME,
        "ssh_pwauth": False,
        "disable_root": True,
        "users": [
            {
                "name": USER,
                "lock_passwd": True,
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": list(keys),
            }
        ],
    }
    if _deploys_itself(asked):
        environment = f"--env {quote(str(asked.layers['env']))} " if asked.layers.get("env") else ""
        script = _DEPLOY.format(profile=quote(asked.profile), environment=environment, bundle=_BUNDLE, maker=_MAKER)
        data["runcmd"] = [["sh", "-c", script]]
    return "#cloud-config\n" + yaml.safe_dump(data, sort_keys=True)


def _deploys_itself(asked: Asked) -> bool:
    """Layers of a site or a user are files of the builder's, and not on the image: a controller deploys those."""
    return not any(asked.layers.get(name) for name in ("site", "user", "configs"))


def _key(path: Path) -> str:
    line = read_text(path).strip()
    kind, _space, _rest = line.partition(" ")
    if "\n" in line or not kind.startswith(("ssh-", "ecdsa-", "sk-")) or "PRIVATE" in line:
        raise UsageError(f"{path} is not a public key of OpenSSH: name the file that ends in .pub")
    return line


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
