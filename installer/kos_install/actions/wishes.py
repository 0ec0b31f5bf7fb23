# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node does by itself on its first starts: its TPM learns to open its disks, once Secure Boot is enforced.

For that it needs a key of each disk, in a slot of its own that is marked, and the PIN sealed for the node alone. Both
lie in the encrypted root and are gone when it is done.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node import files
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import enrol
from ansible_collections.kind.kos.plugins.module_utils.node.machine import luks as headers

from ..errors import ApplyFailed
from ..storage.actions import Luks
from . import luks, target
from .context import Context
from .runner import run

PIN = "tpm2_pin"
_BYTES = 48


def leave(context: Context, root: Root) -> None:
    """Leave the wish in the target, where the answers have it; what is there already stays. Raises ApplyFailed."""
    asked = context.answers.encryption.tpm2
    if asked is None:
        return
    disks = _disks(context)
    enrol.wish(root, [one.uuid for one in disks], asked.pin is not None)
    key = _key(root)
    for one in disks:
        if not luks.opens(one.device, key):
            slot = luks.add_key(one.device, context.secrets[luks.PASSPHRASE], key, context.log)
            token = json.dumps({"type": enrol.TOKEN, "keyslots": [slot]})
            run(["cryptsetup", "token", "import", "--json-file=-", one.device], stdin=token, log=context.log)
    if asked.pin is not None:
        _seal(context, root)


def _disks(context: Context) -> list[Luks]:
    return [one for one in context.plan.actions if isinstance(one, Luks)]


def _key(root: Root) -> str:
    path = root.join(enrol.KEY)
    if files.read(path) is None:
        files.write(path, secrets.token_urlsafe(_BYTES).encode(), 0o600)
    return (files.read(path) or b"").decode()


def _seal(context: Context, root: Root) -> None:
    """By the node's own key for credentials, which is made in its encrypted root."""
    if PIN not in context.secrets:
        raise ApplyFailed("the secret tpm2_pin was not given: give it, then resume")
    argv = ["systemd-creds", "encrypt", "--with-key=host", f"--name={enrol.PIN_NAME}", "-", "-"]
    sealed = target.inside(context.target, argv, stdin=context.secrets[PIN])
    files.write(root.join(enrol.PIN), sealed.encode(), 0o600)


def left(context: Context, root: Root) -> bool:
    """Whether all of it is there."""
    asked = context.answers.encryption.tpm2
    wanted = [enrol.WISH, enrol.KEY, *([enrol.PIN] if asked and asked.pin else [])] if asked else []
    return all(files.read(root.join(path)) is not None for path in wanted) and all(
        marked(luks.dump(one.device) or {}) for one in _disks(context) if asked
    )


def marked(header: Mapping[str, Any]) -> set[str]:
    """The slots of a header that wait for the first start."""
    return headers.marked(header, enrol.TOKEN)
