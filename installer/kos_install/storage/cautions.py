# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person should know before they say yes: no reason to refuse, but one to think."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from ansible_collections.kind.kos.plugins.module_utils.node.machine import signatures

from ..answers import Answers
from ..hardware.model import Disk, Machine
from .layouts import Laid
from .selection import described, names
from .sizes import human
from .words import HOLDS

FOR_TESTS = "this medium is for tests only: it locks disks as cheaply as the answers ask for"
# What several disks are members of, all with the same UUID: of libblkid's, and btrfs.
_SETS = {"raid": "RAID", "zfs": "ZFS pool", "btrfs": "btrfs"}


def cautions(answers: Answers, machine: Machine, laid: Sequence[Laid]) -> list[str]:
    """Every warning, the gravest first."""
    return [
        *(line for one in laid if one.wipe for line in _lost(one.disk)),
        *_torn(machine, [one.disk for one in laid if one.wipe]),
        *_locked_out(answers, machine, {one.disk.path for one in laid if one.wipe}),
        *(line for one in laid for line in _place(one.disk)),
        *_mirror(laid),
        *(line for one in laid if not one.wipe for line in _beside(one)),
        *_confirmed_in_vain(answers, machine),
        *_typing(answers),
        *_pending(answers, machine),
        *_cards(answers, machine),
    ]


def _lost(disk: Disk) -> Iterator[str]:
    """What is on a disk that is wiped, by name."""
    if disk.holds:
        yield f"the whole of {disk.path} ({HOLDS.get(disk.holds, 'file system')}) will be lost"
    for one in disk.partitions:
        what = one.os or HOLDS.get(one.holds) or (f"a file system ({one.filesystem})" if one.filesystem else "")
        called = f" called {one.fs_label}" if one.fs_label else ""
        if what and one.type not in signatures.TYPES:
            yield f"{what}{called} on partition {one.number} of {disk.path} ({human(one.size)}) will be lost"


def _torn(machine: Machine, wiped: list[Disk]) -> Iterator[str]:
    """RAIDs, volume groups and the like that reach over to a disk which stays."""
    lost = {name: one.path for one in reversed(wiped) for name in _spread(one)}
    for disk in machine.disks:
        shared = sorted(_spread(disk) & set(lost))
        if shared and disk.path not in {one.path for one in wiped}:
            yield f"{lost[shared[0]]} and {described(disk)} hold one {shared[0]}: what is on both may be lost as well"


def _locked_out(answers: Answers, machine: Machine, wiped: set[str]) -> Iterator[str]:
    """Systems on disks that stay, and start by the keys that own ones take the place of (see secureboot.vendors)."""
    for disk in machine.disks if answers.encryption.secure_boot == "own" else ():
        systems = [one.os for one in disk.partitions if one.os and one.type not in signatures.TYPES]
        if systems and not disk.medium and disk.path not in wiped:
            yield (
                f"with own keys {systems[0]} on {disk.path} will not start any more while Secure Boot is on:"
                " take secure_boot: stock to keep it"
            )


def _spread(disk: Disk) -> set[str]:
    """What may reach over several disks: what is built on this one, and the sets that it is a member of."""
    members = [(disk.holds, disk.filesystem, disk.fs_uuid)]
    members += [(one.holds, one.filesystem, one.fs_uuid) for one in disk.partitions]
    kinds = [(holds if holds in _SETS else filesystem, uuid) for holds, filesystem, uuid in members]
    return {f"{_SETS[kind]} ({uuid})" for kind, uuid in kinds if kind in _SETS and uuid} or set(disk.holders)


def _place(disk: Disk) -> Iterator[str]:
    if disk.removable or disk.bus == "usb":
        yield f"{disk.path} can be pulled out: the node stops when it is"
    if not disk.serial:
        yield f"{disk.path} has no serial number: it is only told by its path and its size"


def _mirror(laid: Sequence[Laid]) -> Iterator[str]:
    sizes = sorted(one.disk.size for one in laid if one.wipe and one.role != "data")
    if len(sizes) > 1 and sizes[0] < sizes[-1] * 0.9:
        yield f"a mirror holds what its smaller disk does: {human(sizes[-1] - sizes[0])} of the larger stay unused"


def _beside(laid: Laid) -> Iterator[str]:
    if laid.remove:
        yield (
            f"an install that ended before it began left {len(laid.remove)} empty partitions kos-* on"
            f" {laid.disk.path}: they are removed"
        )
    systems = [one.os for one in laid.disk.partitions if one.os and one.type not in signatures.TYPES]
    if systems and not laid.shared_esp:
        yield f"to start {systems[0]}, use the firmware's own menu (F12 or the like): kOS starts first, and alone"
    if any(one.holds == "bitlocker" for one in laid.disk.partitions):
        yield "BitLocker may ask for its recovery key at the next start of Windows: have it at hand"


def _confirmed_in_vain(answers: Answers, machine: Machine) -> Iterator[str]:
    """One of them is a slip, or these are the answers of another machine."""
    known = {name for disk in machine.disks for name in names(disk)}
    for name in answers.confirm.wipe:
        if name not in known:
            yield f"confirm.wipe names {name}, and no disk here is called so: is it a slip, or of another machine?"


def _typing(answers: Answers) -> Iterator[str]:
    if answers.keyboard != "us":
        yield (
            f"the passphrase is typed on a keyboard of layout {answers.keyboard} at every start, as on this console:"
            " on another keyboard, letters that are elsewhere there would lock you out"
        )


def _pending(answers: Answers, machine: Machine) -> Iterator[str]:
    asked = answers.encryption
    if asked.tpm2 and asked.secure_boot == "stock" and machine.secure_boot != "on":
        yield "the TPM opens the disk only once Secure Boot is switched on in the firmware; until then it stays pending"
    if asked.tpm2 and asked.secure_boot == "own":
        yield "the TPM opens the disk once the firmware has this machine's keys: the first starts want the passphrase"


def _cards(answers: Answers, machine: Machine) -> Iterator[str]:
    cards = [card.name for card in machine.nics]
    asked = answers.encryption
    if not cards and (asked.tang or asked.remote_unlock):
        yield "no network card is seen here, and unlocking over a network needs one with a cable"
    for interface in answers.network:
        if "*" not in interface.match and not any(fnmatchcase(name, interface.match) for name in cards):
            yield f"no network card is called {interface.match} here; there is {', '.join(cards) or 'none'}"
