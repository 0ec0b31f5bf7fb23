# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open the volume and let the services have their data; close it again."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from .. import files, gate, store, system
from ..files import NodeError, Root
from ..journal import boot_id
from ..machine import cryptsetup, enrol, luks
from . import units
from .record import DEVICE, NAME, VOLUME, Locked, Record, alone, in_use, load, locked, mounted, moved, require, save

_PATIENCE = 120  # seconds: a TPM that is busy, a key that is to be touched
# seconds: a disk that starts slowly, and a network; nobody waits for a Tang server where there is no key of one
_DISK, _NETWORK, _AGAIN = 30.0, 90.0, 5.0


class WrongKey(NodeError):
    """This opens nothing."""


class NoDisk(NodeError):
    """The disk with the volume is not there."""


def wait_for_disk(record: Record) -> None:
    """Until the disk with this header is there: udev tells of one some time after it was written, or plugged in.

    Raises NoDisk.
    """
    until = time.monotonic() + _DISK
    while not os.path.exists(record.device):
        if time.monotonic() > until:
            raise NoDisk(
                f"the disk with the encrypted volume ({record.target}) is not there: plug it in, then try again"
            )
        system.run(["udevadm", "settle", "--timeout=10"], check=False)
        time.sleep(0.2)


def is_open(root: Root) -> bool:
    """Whether the kernel has the opened device."""
    return os.path.exists(root.join(DEVICE))


def by_hand(root: Root, record: Record, key: str) -> None:
    """Open the device with a passphrase, a recovery key, or the PIN of the machine's chip. Raises WrongKey."""
    if is_open(root):
        if not cryptsetup.opens(record.device, key):
            raise WrongKey("this opens the encrypted volume no more than any other text: nothing was changed")
        return
    if cryptsetup.open_as(record.device, NAME, key):
        return
    # A wrong PIN counts against the chip's patience: it is only tried where one is asked for.
    if _tpm2(cryptsetup.dump(record.device) or {}, pin=True) and _by_systemd(record, luks.TPM2, key):
        return
    raise WrongKey(
        "neither a passphrase nor a recovery key or PIN of the encrypted volume: it stays locked; type it again"
    )


def by_itself(root: Root, record: Record, touched: bool = False) -> bool:
    """Open the device with what this machine has: its chip, a Tang server, a FIDO2 key that somebody touches."""
    if is_open(root):
        return True
    header = cryptsetup.dump(record.device) or {}
    if _tpm2(header, pin=False) and _by_systemd(record, luks.TPM2):
        return True
    if luks.marked(header, luks.TANG) and _by_clevis(record):
        return True
    return touched and bool(luks.marked(header, luks.FIDO2)) and _by_systemd(record, luks.FIDO2)


def _tpm2(header: Mapping[str, Any], pin: bool) -> bool:
    """Whether the machine's chip has a key of it, with a PIN or without."""
    found = [token for token in header.get("tokens", {}).values() if token["type"] == luks.TPM2]
    return any(bool(token.get("tpm2-pin")) == pin for token in found)


def _by_systemd(record: Record, kind: str, pin: str = "") -> bool:
    how = {luks.TPM2: "tpm2-device=auto", luks.FIDO2: "fido2-device=auto"}[kind]
    line = ["/usr/lib/systemd/systemd-cryptsetup", "attach", NAME, record.device, "-"]
    # Nobody is asked for what is not given, and no passphrase is tried.
    line.append(f"luks,discard,{how},headless=true,token-timeout=30s,password-cache=no")
    with enrol.credentials({"cryptsetup.luks2-pin": pin.encode()} if pin else {}) as told:
        return system.run(line, check=False, timeout=_PATIENCE, environment=told).returncode == 0


def _by_clevis(record: Record) -> bool:
    unlock = ["clevis", "luks", "unlock", "-d", record.device, "-n", NAME]
    until = time.monotonic() + _NETWORK
    while system.run(unlock, check=False, timeout=_PATIENCE).returncode:
        if time.monotonic() > until:
            return False
        time.sleep(_AGAIN)
    return True


def at_boot(root: Root) -> str:
    """Open it if a key of this machine can, and mount it; a sentence for the journal. Raises NodeError."""
    record = load(root)
    if record is None or not in_use(root):
        return "the data of this node are not in an encrypted volume"
    wait_for_disk(record)
    if not by_itself(root, record):
        header = cryptsetup.dump(record.device) or {}
        if _tpm2(header, pin=False) or luks.marked(header, luks.TANG):
            raise Locked("no key of this machine opened its data: kai encryption unlock asks for the passphrase")
        return "the data of this node are locked: kai encryption unlock asks for the passphrase"
    _have(root, record)
    return "the data of this node are open"


def _have(root: Root, record: Record) -> None:
    units.mount(root, moved(root))
    if record.opened != boot_id():
        save(root, record.put(opened=boot_id()))


def unlock(root: Root, key: str) -> dict[str, Any]:
    """Open it with `key` (without one: with what the machine has) and start what waited for it.

    Raises NotEncrypted, WrongKey, Locked, CommandFailed.
    """
    with alone(root):
        record = require(root)
        was_locked = locked(root)
        wait_for_disk(record)
        if key:
            by_hand(root, record, key)
        elif not by_itself(root, record, touched=True):
            raise Locked("no key of this machine opens its data: give the passphrase or the recovery key")
        if in_use(root):
            _have(root, record)
    services = start_waiting(root) if was_locked else []
    return {"opened": was_locked, "services": services, "ok": all(row["healthy"] for row in services)}


def start_waiting(root: Root) -> list[dict[str, Any]]:
    """Start every unit that the locked data held back, as this boot would have; the health of the services then."""
    generation = store.current(root)
    if generation is None:
        return []
    names = [row["name"] for row in generation.manifest["units"] if row["starts"] != "demand"]
    system.systemctl("start", names, "--no-block")
    system.wait_for_jobs(names)
    return [row.as_dict() for row in gate.wait_healthy(generation.manifest["services"])]


def lock(root: Root) -> dict[str, Any]:
    """Stop what uses the data, and close the volume. Raises NotEncrypted, CommandFailed."""
    with alone(root), files.lock(root):
        require(root)
        if not in_use(root):
            raise NodeError("the data are not moved yet, so there is nothing to lock: kai encryption apply goes on")
        generation = store.current(root)
        names = units.guarded(generation.manifest) if generation else []
        if mounted(root, VOLUME):
            system.stop(names)
            units.unmount(moved(root))
        if is_open(root):
            cryptsetup.close(NAME)
    return {"locked": True}
