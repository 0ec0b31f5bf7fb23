# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The initrd of the first boot entry: the medium's, for any machine; or one with this machine's network and keys.

It stays in the target's /boot, where an update of the system finds it.
"""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout
from ansible_collections.kind.kos.plugins.plugin_utils import cpio

from .. import keyboards
from ..answers import Answers
from . import target
from .context import Context
from .target import Entry, File

# dracut's module 90kos-unlock reads these.
FOLDER = "/etc/kos/unlock"
HOST_KEY = f"{FOLDER}/ssh_host_ed25519_key"
_MEDIUM = f"{system_layout.INSTALLED}/initrd"
# dracut's module 90kos-keymap loads it; an initrd that is made on the node gets it from there.
_KEYMAP = "etc/kos/console.kmap"


def entries(answers: Answers) -> list[Entry]:
    """What dracut looks at: the files of unlocking over a network; none where that is not asked for."""
    asked = answers.encryption
    found: list[Entry] = []
    if asked.remote_unlock:
        keys = "".join(f"{key}\n" for key in asked.remote_unlock.ssh_keys)
        found += [
            File(f"{FOLDER}/authorized_keys", keys, 0o600),
            File(f"{FOLDER}/port", f"{asked.remote_unlock.port}\n"),
        ]
    if asked.tang:
        found.append(File(f"{FOLDER}/tang", f"{asked.tang.url}\n"))
    return found


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
        if entries(context.answers):
            target.inside(context.target, ["dracut", "--quiet", "--force", unfinished, version])
        else:
            _copy(root, root.join(unfinished))
        Path(root.join(unfinished)).chmod(0o600)
        Path(root.join(unfinished)).rename(finished)
    return finished


def _copy(root: Root, path: str) -> None:
    """The medium's, which is any machine's, and behind it the keymap that this machine's passphrase is typed with."""
    shutil.copyfile(_MEDIUM, path)
    keymap = gzip.decompress(Path(root.join(keyboards.KEYMAP)).read_bytes())
    with open(path, "ab") as file:
        file.write(cpio.behind(file.tell(), {_KEYMAP: (0o644, keymap)}))
