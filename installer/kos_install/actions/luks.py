# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LUKS2: formatted with the parameters that the plan forces, opened, and given a recovery key."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node.machine import luks as headers
from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout

from ..errors import ApplyFailed
from ..storage.actions import Luks, Table
from . import disks
from .context import Context
from .runner import Log, run, secret_file, succeeds

PASSPHRASE, RECOVERY = "passphrase", "recovery_key"


def perform(context: Context, action: Luks) -> None:
    """Format the partition, give it its keys and open it. Raises ApplyFailed."""
    device = _device(context, action)
    close(action.name, context.log)
    passphrase = _passphrase(context)
    format_it = ["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--uuid", action.uuid]
    # Without --label: the partition has one.
    run([*format_it, *cost(action).arguments(), "--key-file=-", device], stdin=passphrase, log=context.log)
    if action.recovery_key:
        _give_recovery_key(context, device)
    _open(device, action.name, passphrase, context.log)


def stands(context: Context, action: Luks) -> bool:
    """Whether the partition is as asked, and the passphrase opens it; a wrong one raises ApplyFailed."""
    device = _device(context, action)
    header = dump(device)
    if header is None or uuid(device) != action.uuid or not as_asked(header, action):
        return False
    if not opens(device, _passphrase(context)):
        raise ApplyFailed(
            "this passphrase does not open what was begun: type the one of the first try, or begin a new install"
        )
    return True


def again(context: Context, action: Luks) -> None:
    """Open it after another start of the machine; nobody is sure to have its recovery key: a new one takes its place.

    Raises ApplyFailed.
    """
    device = _device(context, action)
    if action.recovery_key and RECOVERY not in context.made:
        for token, slots in headers.tokens(dump(device) or {}, headers.RECOVERY).items():
            for slot in slots:
                _kill(device, slot, _passphrase(context), context.log)
            run(["cryptsetup", "token", "remove", "--token-id", token, device], log=context.log)
        _give_recovery_key(context, device)
    reopen(context, action)


def reopen(context: Context, action: Luks) -> None:
    """Open it, unless it is open. Raises ApplyFailed."""
    if not Path(system_layout.MAPPER, action.name).exists():
        _open(_device(context, action), action.name, _passphrase(context), context.log)


def close(name: str, log: Log) -> None:
    """Close an opened device, where there is one of that name. Raises ApplyFailed."""
    if Path(system_layout.MAPPER, name).exists():
        run(["cryptsetup", "close", name], log=log)


def opens(device: str, key: str) -> bool:
    """Whether a key opens any slot."""
    return succeeds(["cryptsetup", "open", "--test-passphrase", "--key-file=-", device], stdin=key)


def slot_opens(device: str, key: str, slot: str) -> bool:
    """Whether a key opens this one slot."""
    test = ["cryptsetup", "open", "--test-passphrase", "--key-slot", slot, "--key-file=-", device]
    return succeeds(test, stdin=key)


def dump(device: str) -> dict[str, Any] | None:
    """The header's own JSON: keyslots, tokens, segments. None for what is no LUKS2."""
    if not succeeds(["cryptsetup", "isLuks", "--type", "luks2", device]):
        return None
    return dict(json.loads(run(["cryptsetup", "luksDump", "--dump-json-metadata", device])))


def uuid(device: str) -> str:
    """Of the LUKS header."""
    return run(["cryptsetup", "luksUUID", device]).strip()


def as_asked(header: Mapping[str, Any], action: Luks) -> bool:
    """Whether just one slot is argon2id, with what was asked for; and a recovery key is there, or is not."""
    recoverable = bool(headers.marked(header, headers.RECOVERY))
    return headers.costs(header) == [cost(action).as_said()] and recoverable == action.recovery_key


def cost(action: Luks) -> headers.Cost:
    """What a guess at its passphrase was asked to cost."""
    return headers.Cost(action.memory_kib, action.iterations, action.threads)


def add_key(device: str, existing: str, new: str, log: Log) -> str:
    """Let a key that a machine made open it too; the number of its slot. Raises ApplyFailed."""
    before = _slots(device)
    with secret_file(new) as descriptor:
        add = [
            "cryptsetup",
            "luksAddKey",
            "--batch-mode",
            *headers.CHEAP,
            "--key-file=-",
            device,
            f"/dev/fd/{descriptor}",
        ]
        run(add, stdin=existing, files=[descriptor], log=log)
    [slot] = _slots(device) - before
    return slot


def back_up_header(device: str, target: Path, log: Log) -> None:
    """Keep a copy of the header in a file that only root reads: it belongs into the encrypted root, nowhere else.

    Raises ApplyFailed.
    """
    unfinished = target.with_name(f".{target.name}.new")
    unfinished.unlink(missing_ok=True)
    # It makes the file for root alone.
    run(["cryptsetup", "luksHeaderBackup", "--batch-mode", "--header-backup-file", str(unfinished), device], log=log)
    unfinished.chmod(0o400)
    unfinished.rename(target)


def _give_recovery_key(context: Context, device: str) -> None:
    """The halves of a mirror, and the disk for data, have the same one."""
    fresh = RECOVERY not in context.made
    key = context.made.setdefault(RECOVERY, headers.new_recovery_key())
    slot = add_key(device, _passphrase(context), key, context.log)
    token = json.dumps({"type": headers.RECOVERY, "keyslots": [slot]})
    run(["cryptsetup", "token", "import", "--json-file=-", device], stdin=token, log=context.log)
    if fresh:
        context.show_recovery_key(key)


def _slots(device: str) -> set[str]:
    return set((dump(device) or {"keyslots": {}})["keyslots"])


def _kill(device: str, slot: str, passphrase: str, log: Log) -> None:
    run(["cryptsetup", "luksKillSlot", "--batch-mode", "--key-file=-", device, slot], stdin=passphrase, log=log)


def _open(device: str, name: str, passphrase: str, log: Log) -> None:
    open_it = ["cryptsetup", "open", "--type", "luks2", "--allow-discards", "--key-file=-", device, name]
    run(open_it, stdin=passphrase, log=log)
    disks.appeared(os.path.join(system_layout.MAPPER, name))


def _passphrase(context: Context) -> str:
    try:
        return context.secrets[PASSPHRASE]
    except KeyError as error:
        raise ApplyFailed("there is no passphrase: type it, or name where it comes from in the answers") from error


def _device(context: Context, action: Luks) -> str:
    targets = [one.disk for one in context.plan.actions if isinstance(one, Table)]
    return str(disks.partition(action.device, targets))
