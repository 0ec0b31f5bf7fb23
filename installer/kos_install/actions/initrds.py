# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The initrd of the first boot entry: the medium's, for any machine; or one that holds this machine's way in by SSH.

It stays in the target's /boot, where an update of the system finds it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node import system_layout
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root

from ..answers import Answers
from . import target
from .context import Context
from .target import Entry, File

# dracut's module 90kos-unlock reads these.
FOLDER = "/etc/kos/unlock"
HOST_KEY = f"{FOLDER}/ssh_host_ed25519_key"
_MEDIUM = f"{system_layout.INSTALLED}/initrd"


def entries(answers: Answers) -> list[Entry]:
    """The files of remote unlocking; none where it is not asked for."""
    asked = answers.encryption.remote_unlock
    if asked is None:
        return []
    return [
        File(f"{FOLDER}/authorized_keys", "".join(f"{key}\n" for key in asked.ssh_keys), 0o600),
        File(f"{FOLDER}/port", f"{asked.port}\n"),
    ]


def make_host_key(context: Context, root: Root) -> None:
    """Make the key that the locked machine shows: not the one of the system, as anybody at the machine can read it.

    Raises ApplyFailed.
    """
    if context.answers.encryption.remote_unlock and not os.path.exists(root.join(HOST_KEY)):
        name = f"{context.answers.hostname}, locked"
        target.inside(context.target, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", HOST_KEY])


def make(context: Context, root: Root, version: str) -> str:
    """The path of the initrd for kernel `version`, in the target. Raises ApplyFailed, OSError."""
    path = f"/boot/initrd.img-{version}"
    finished, unfinished = root.join(path), f"{path}.new"
    if not os.path.exists(finished):
        if context.answers.encryption.remote_unlock:
            target.inside(context.target, ["dracut", "--quiet", "--force", unfinished, version])
        else:
            shutil.copyfile(_MEDIUM, root.join(unfinished))
        Path(root.join(unfinished)).chmod(0o600)
        Path(root.join(unfinished)).rename(finished)
    return finished
