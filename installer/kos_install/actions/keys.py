# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What else opens the disks, beside the passphrase: a FIDO2 key that is plugged in, a Tang server of the network."""

from __future__ import annotations

import json

from ansible_collections.kind.kos.plugins.module_utils.node.machine import luks as headers

from ..answers import Tang
from ..errors import ApplyFailed
from ..storage.actions import Luks
from . import luks
from .context import Context
from .runner import run, secret_file


def give(context: Context) -> None:
    """Let them open each disk of the plan; one that does already stays. Raises ApplyFailed."""
    asked = context.answers.encryption
    for one in _disks(context):
        if asked.fido2 and not slots(one.device, headers.FIDO2):
            _give_fido2(context, one.device)
        if asked.tang and not slots(one.device, headers.TANG):
            _give_tang(context, one.device, asked.tang)
    if not are_given(context):
        raise ApplyFailed(
            "a key was given to the disk and is not in its header: resume, or leave it out of the answers"
        )


def are_given(context: Context) -> bool:
    """Whether each disk has what was asked for."""
    return all(slots(one.device, kind) for one in _disks(context) for kind in wanted(context))


def wanted(context: Context) -> list[str]:
    """The types of tokens that were asked for."""
    asked = context.answers.encryption
    return [*([headers.FIDO2] if asked.fido2 else []), *([headers.TANG] if asked.tang else [])]


def slots(device: str, kind: str) -> set[str]:
    """The key slots of a token of this type."""
    return headers.marked(luks.dump(device) or {}, kind)


def _disks(context: Context) -> list[Luks]:
    return [one for one in context.plan.actions if isinstance(one, Luks)]


def _give_fido2(context: Context, device: str) -> None:
    """Whoever is there touches the key: it asks for that by its light."""
    context.log(f"touch the FIDO2 key when it blinks: it learns to open {device}")
    with secret_file(context.secrets[luks.PASSPHRASE]) as descriptor:
        how = [f"--unlock-key-file=/dev/fd/{descriptor}", "--fido2-device=auto", "--fido2-with-client-pin=no"]
        run(["systemd-cryptenroll", *how, device], files=[descriptor], log=context.log)


def _give_tang(context: Context, device: str, tang: Tang) -> None:
    bind = ["clevis", "luks", "bind", "-y", "-k", "-", "-d", device, "tang", settings_of(tang)]
    run(bind, stdin=context.secrets[luks.PASSPHRASE], log=context.log)


def settings_of(tang: Tang) -> str:
    """As clevis takes them. With the thumbprint nobody is asked whether it is the right server: another is refused."""
    return json.dumps({"url": tang.url, "thp": tang.thumbprint})
