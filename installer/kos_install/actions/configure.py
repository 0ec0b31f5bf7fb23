# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the unpacked target this machine: what it mounts, what it is called, who may log in, whom it believes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node import files
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import enrol

from .. import medium
from ..errors import ApplyFailed
from ..storage.actions import Configure, Luks, Plan
from . import data, identity, initrds, keys, luks, mounts, networks, own, target, users, wishes
from .context import Context
from .target import Entry

FINGERPRINT = "ssh_fingerprint"
# In the encrypted root: who has a header and a passphrase has the disk's key.
_HEADERS = enrol.HEADERS


def perform(context: Context, action: Configure) -> None:
    """Write and make all of it; what is there already stays. Raises ApplyFailed, OSError."""
    root = Root(str(context.target))
    steps: Sequence[Callable[[], None]] = (
        lambda: target.lay(root, entries(context)),
        lambda: identity.make(root, context.answers),
        lambda: users.make(root, context.answers.user),
        lambda: _keep_headers(context, root),
        lambda: keys.give(context),
        lambda: wishes.leave(context, root),
        lambda: initrds.make_host_key(context, root),
        lambda: data.take(root, lambda done, total: context.progress(action.id, done, total, "bytes")),
        lambda: own.enrol(root),
    )
    for step in steps:
        step()
    again(context, action)


def again(context: Context, _action: Configure) -> None:
    """Say by which fingerprint the node will be known. Raises ApplyFailed."""
    context.made[FINGERPRINT] = identity.fingerprint(Root(str(context.target)))


def stands(context: Context, _action: Configure) -> bool:
    """Whether all of it is there, as the answers say."""
    root, answers = Root(str(context.target)), context.answers
    return (
        target.lies(root, entries(context))
        and identity.stands(root, answers)
        and users.stands(root, answers.user)
        and all(path.is_file() for _luks, path in _headers(root, context.plan))
        and keys.are_given(context)
        and wishes.left(context, root)
        and data.lies(root)
        and own.enrolled(root)
    )


def entries(context: Context) -> list[Entry]:
    """Every file and link that follows from answers and plan. Raises ApplyFailed."""
    answers = context.answers
    try:
        network = networks.entries(answers.network, context.secrets)
    except networks.Missing as error:
        raise ApplyFailed(f"the secret {error} was not given: give it, then resume") from error
    profile = answers.profile or str(medium.record().get("profile", ""))
    return [
        *mounts.entries(context.plan, tpm2=answers.encryption.tpm2 is not None),
        *identity.entries(answers),
        *network,
        *initrds.entries(answers),
        *own.entries(answers, profile),
    ]


def _headers(root: Root, plan: Plan) -> list[tuple[Luks, Path]]:
    return [
        (one, Path(root.join(f"{_HEADERS}/{one.name}.luks-header"))) for one in plan.actions if isinstance(one, Luks)
    ]


def _keep_headers(context: Context, root: Root) -> None:
    """Copy each LUKS header: with it a disk opens whose own was overwritten."""
    for wanted, path in _headers(root, context.plan):
        files.make_directory(str(path.parent))
        path.parent.chmod(0o700)
        luks.back_up_header(wanted.device, path, context.log)
