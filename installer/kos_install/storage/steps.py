# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flat list of actions that brings disks into the shape that was laid out, and a system onto them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names

from ..answers import Answers
from ..hardware.model import Machine
from .actions import (
    Action,
    Boot,
    Btrfs,
    Configure,
    Converge,
    Fat,
    Finish,
    Journal,
    Luks,
    Mount,
    Release,
    Table,
    Target,
    Unpack,
    Verify,
    Wipe,
)
from .cost import argon2id
from .layouts import Laid, identity

_OPTIONS = "noatime"
# The firmware's files are the administrator's alone: FAT knows no owners.
_ESP_OPTIONS = "umask=0077,noatime"
_FIRST_ROOT = names.ROOT_SLOT.format(number=1)


def steps(answers: Answers, machine: Machine, laid: Sequence[Laid], seed: str) -> list[Action]:
    """Every action in order. The loader's name comes last.

    The journal begins when every disk has its table: who resumes is not asked again, so nothing is left to wipe then.
    """
    tables = [_table(one, seed) for one in laid]
    made = [action for group in tables for action in group]
    journal = Journal(
        id="journal", needs=[group[-1].id for group in tables], device=_device(laid[0].made(names.JOURNAL).uuid)
    )
    formats = _formats(answers, machine, laid, seed)
    return [*made, journal, *formats, *_system(answers, machine, laid, [action.id for action in formats])]


def _table(laid: Laid, seed: str) -> list[Action]:
    disk, tail = Target(path=laid.disk.path, serial=laid.disk.serial, size=laid.disk.size), _tail(laid)
    if not laid.wipe:
        return [Table(id=f"table{tail}", disk=disk, wipe=False, make=list(laid.make),
                      preserve=list(laid.preserve), remove=list(laid.remove))]  # fmt: skip
    return [
        Release(id=f"release{tail}", disk=disk),
        Wipe(id=f"wipe{tail}", needs=[f"release{tail}"], disk=disk),
        Table(id=f"table{tail}", needs=[f"wipe{tail}"], disk=disk, wipe=True, uuid=identity(seed, f"table{tail}"),
              make=list(laid.make)),
    ]  # fmt: skip


def _formats(answers: Answers, machine: Machine, laid: Sequence[Laid], seed: str) -> list[Action]:
    systems = [one for one in laid if one.role != "data"]
    luks = [_luks(answers, machine, one, names.DATA if one.role == "data" else names.ROOT, seed) for one in laid]
    opened = {one.name: one.id for one in luks}
    keeps = names.DATA in opened
    roots = [name for name in opened if name != names.DATA]
    volumes = [_btrfs(names.ROOT, roots, [opened[name] for name in roots], _subvolumes(_FIRST_ROOT, not keeps), seed)]
    if keeps:
        volumes.append(_btrfs(names.DATA, [names.DATA], [opened[names.DATA]], list(names.PERSISTENT), seed))
    fats = [
        Fat(id=f"fat-{names.ESP}{one.suffix}", needs=["journal", f"table{_tail(one)}"], device=_device(one.esp()),
            label=f"{names.ESP}{one.suffix}".upper(), volume_id=identity(seed, f"fat{one.suffix}")[:8].upper())
        for one in systems
        if not one.shared_esp
    ]  # fmt: skip
    return [*luks, *volumes, *fats]


def _luks(answers: Answers, machine: Machine, laid: Laid, label: str, seed: str) -> Luks:
    cost, part = argon2id(machine, answers.encryption.argon2id), laid.made(label)
    return Luks(
        id=f"luks-{part.label}",
        needs=["journal", f"table{_tail(laid)}"],
        device=_device(part.uuid),
        name=part.label,
        uuid=identity(seed, f"luks/{part.label}"),
        memory_kib=cost.memory_kib,
        iterations=cost.iterations,
        threads=cost.threads,
        recovery_key=answers.encryption.recovery_key,
    )


def _btrfs(label: str, opened: list[str], needs: list[str], subvolumes: list[str], seed: str) -> Btrfs:
    devices = [f"{names.MAPPER}/{name}" for name in opened]
    return Btrfs(id=f"btrfs-{label}", needs=needs, devices=devices, label=label,
                 uuid=identity(seed, f"btrfs/{label}"), subvolumes=subvolumes)  # fmt: skip


def _subvolumes(root: str, all_of_it: bool) -> list[str]:
    return [root, *(names.PERSISTENT if all_of_it else ())]


def _system(answers: Answers, machine: Machine, laid: Sequence[Laid], formats: list[str]) -> list[Action]:
    esps = [_device(one.esp()) for one in laid if one.role != "data"]
    loader: Literal["grub", "systemd-boot"] = "grub" if machine.firmware == "bios" else "systemd-boot"
    return [
        Mount(id="mount", needs=formats, mounts=_mounts(any(one.role == "data" for one in laid), esps)),
        Unpack(id="unpack", needs=["mount"]),
        Configure(id="configure", needs=["unpack"]),
        Converge(id="converge", needs=["configure"]),
        Boot(id="boot", needs=["configure", "converge"], loader=loader, esps=esps,
             uki=answers.encryption.secure_boot == "own", shared_esp=bool(laid[0].shared_esp), beside=not laid[0].wipe),
        Verify(id="verify", needs=["boot"]),
        Finish(id="finish", needs=["verify"]),
    ]  # fmt: skip


def _mounts(keeps: bool, esps: list[str]) -> list[tuple[str, str, str]]:
    """The root, what lies below it, what goes with the root though it is looked for elsewhere, the firmware's."""
    root, data = f"{names.MAPPER}/{names.ROOT}", f"{names.MAPPER}/{names.DATA if keeps else names.ROOT}"
    below = [(data, where, f"subvol={name},{_OPTIONS}") for name, where in names.PERSISTENT.items()]
    bound = [(f"{names.SYSIMAGE}/{name}", where, "bind") for name, where in names.BOUND.items()]
    firmware = [(device, names.ESP_AT + ("", names.SECOND)[number], _ESP_OPTIONS) for number, device in enumerate(esps)]
    return [(root, "/", f"subvol={_FIRST_ROOT},{_OPTIONS}"), *below, *bound, *firmware]


def _device(uuid: str) -> str:
    """By what the plan itself calls the partition: a disk may have another path at the next start."""
    return f"/dev/disk/by-partuuid/{uuid}"


def _tail(laid: Laid) -> str:
    return {"system": "", "second": names.SECOND, "data": "-data"}[laid.role]
