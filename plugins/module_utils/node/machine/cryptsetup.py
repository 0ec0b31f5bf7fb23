# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of cryptsetup on a running machine. A key goes in by standard input: never in arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from .. import files, system
from . import luks

_OPEN = ["cryptsetup", "open", "--type", "luks2"]


def dump(device: str) -> dict[str, Any] | None:
    """The header's own JSON: keyslots, tokens, segments. None for what is no LUKS2."""
    if system.run(["cryptsetup", "isLuks", "--type", "luks2", device], check=False).returncode:
        return None
    return dict(json.loads(system.run(["cryptsetup", "luksDump", "--dump-json-metadata", device]).stdout))


def uuid(device: str) -> str:
    """Of the LUKS header, or of a copy of one. Raises CommandFailed."""
    return system.run(["cryptsetup", "luksUUID", device]).stdout.decode().strip()


def form(device: str, identity: str, cost: luks.Cost, passphrase: str) -> None:
    """Make a LUKS2 device; whatever was on it is gone. Raises CommandFailed."""
    make = ["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--uuid", identity]
    # Without them, what the package was built with, or this machine's firmware of the disk, would decide.
    strong = ["--cipher", luks.CIPHER, "--key-size", str(8 * luks.KEY_BYTES)]
    system.run([*make, *strong, *cost.arguments(), "--key-file=-", device], passphrase.encode())


def opens(device: str, key: str, slot: str | None = None) -> bool:
    """Whether a key opens any slot, or this one."""
    which = ["--key-slot", slot] if slot is not None else []
    test = [*_OPEN, "--test-passphrase", *which, "--key-file=-", device]
    return system.run(test, key.encode(), check=False).returncode == 0


def open_as(device: str, name: str, key: str) -> bool:
    """Open it with a key; False where that opens no slot."""
    line = [*_OPEN, "--allow-discards", "--key-file=-", device, name]
    return system.run(line, key.encode(), check=False).returncode == 0


def close(name: str) -> None:
    """Close what is open under this name. Raises CommandFailed."""
    system.run(["cryptsetup", "close", name])


def add_passphrase(device: str, existing: str, new: str, cost: luks.Cost) -> None:
    """Let another passphrase open it too. Raises CommandFailed."""
    _add(device, existing, new, cost.arguments())


def add_machine_key(device: str, existing: str, new: str, token: str) -> None:
    """Let a key that a machine made open it too, its slot marked with a token of this type. Raises CommandFailed."""
    before = set((dump(device) or {"keyslots": {}})["keyslots"])
    _add(device, existing, new, list(luks.CHEAP))
    slots = sorted(set((dump(device) or {"keyslots": {}})["keyslots"]) - before)
    row = json.dumps({"type": token, "keyslots": slots})
    system.run(["cryptsetup", "token", "import", "--json-file=-", device], row.encode())


def _add(device: str, existing: str, new: str, parameters: list[str]) -> None:
    reader = os.memfd_create("key")
    try:
        os.write(reader, new.encode())
        line = ["cryptsetup", "luksAddKey", "--batch-mode", *parameters, "--key-file=-", device]
        system.run([*line, f"/proc/{os.getpid()}/fd/{reader}"], existing.encode())
    finally:
        os.close(reader)


def remove_token(device: str, number: str, slots: Sequence[str]) -> None:
    """Remove a token and the slots that it is for. Raises CommandFailed."""
    for slot in slots:
        kill(device, slot)
    # With the last of its slots it may have gone by itself.
    if number in (dump(device) or {"tokens": {}})["tokens"]:
        system.run(["cryptsetup", "token", "remove", "--token-id", number, device])


def kill(device: str, slot: str) -> None:
    """Remove a key slot: whoever comes this far has root, and sees to it that another one stays.

    Raises CommandFailed.
    """
    system.run(["cryptsetup", "luksKillSlot", "--batch-mode", device, slot])


def keep_header(device: str, path: str) -> None:
    """Have a copy of the header at `path`, for root alone, whatever was there before. Raises CommandFailed, OSError."""
    unfinished = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
    files.remove(unfinished)
    system.run(["cryptsetup", "luksHeaderBackup", "--batch-mode", "--header-backup-file", unfinished, device])
    os.chmod(unfinished, 0o400)
    os.rename(unfinished, path)
    files.sync_directory(path)
