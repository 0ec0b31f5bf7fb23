# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node mounts and opens, out of its plan: /etc/fstab, /etc/crypttab, and what its kernel is told. Pure.

Everything is named by the UUIDs of the plan: a disk may have another path at the next start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names

from ..storage.actions import Base, Btrfs, Fat, Luks, Mount, Plan
from .target import Entry, File

_BY_PARTUUID = "/dev/disk/by-partuuid/"
_HEAD = "# Made by kos-install: systemd.mount(5). Which root is mounted is what the boot entry says.\n"
# Seconds that a disk of a mirror may come later than the other: those of servers spin up one by one.
_MISSING = 30
# systemd-gpt-auto-generator(8) would use the swap and the data of another system beside this one.
_ONLY_OURS = ("systemd.gpt_auto=0", "rd.systemd.gpt_auto=0")
_Kind = TypeVar("_Kind", bound=Base)


def entries(plan: Plan, tpm2: bool = False) -> list[Entry]:
    """The two files; `tpm2`: the machine's TPM is to open its disks."""
    table = "".join(f"{row}\n" for row in _crypttab(plan, tpm2))
    return [
        File("/etc/fstab", _HEAD + "".join(f"{row}\n" for row in _fstab(plan))),
        File("/etc/crypttab", f"# Made by kos-install: crypttab(5).\n{table}"),
    ]


def arguments(plan: Plan, number: int = 1, tpm2: bool = False) -> list[str]:
    """What the kernel is told so that its initrd opens and mounts the root `number`."""
    members = roots(plan)
    found = [f"rd.luks.name={one.uuid}={one.name}" for one in members]
    # Neither half of a mirror holds up the other: dracut's module 90kos-mirror goes on with one.
    mirrored = len(members) > 1
    options = [*_unlocking(tpm2), *(["nofail"] if mirrored else [])]
    found += [f"rd.luks.options={','.join(options)}"] if found else []
    root = f"{names.MAPPER}/{names.ROOT}"
    found += [f"root={_filesystem(plan, root) if mirrored else root}", "rootfstype=btrfs"]
    found += [f"rootflags=subvol={names.ROOT_SLOT.format(number=number)}", "rw"]
    return [*found, *([f"kos.mirror={_MISSING}"] if mirrored else []), *_ONLY_OURS]


def _unlocking(tpm2: bool) -> list[str]:
    """Options of crypttab(5): systemd waits for the driver of a TPM only where it is told of one."""
    return ["discard", "tries=0", *(["tpm2-device=auto"] if tpm2 else [])]


def roots(plan: Plan) -> list[Luks]:
    """The encrypted partitions that the root lies on: the initrd opens them."""
    return [one for one in _of(plan, Luks) if one.name != names.DATA]


def _of(plan: Plan, kind: type[_Kind]) -> list[_Kind]:
    return [one for one in plan.actions if isinstance(one, kind)]


def _fstab(plan: Plan) -> Iterator[str]:
    for mount in _of(plan, Mount):
        for what, where, options in mount.mounts:
            if options == "bind":
                yield f"{what} {where} none bind 0 0"
            elif what.startswith(names.MAPPER):
                shown = _without_subvolume(options) if where == "/" else options
                yield f"{_filesystem(plan, what)} {where} btrfs {shown} 0 0"
            else:
                # A node goes on without, and waits for none: a partition of the firmware's is needed for an update.
                yield f"{_firmware(plan, what)} {where} vfat {options},nofail 0 2"


def _without_subvolume(options: str) -> str:
    return ",".join(word for word in options.split(",") if not word.startswith("subvol="))


def _filesystem(plan: Plan, device: str) -> str:
    return next((f"UUID={one.uuid}" for one in _of(plan, Btrfs) if device in one.devices), device)


def _firmware(plan: Plan, device: str) -> str:
    made = next((one for one in _of(plan, Fat) if one.device == device), None)
    if made is not None:
        return f"UUID={made.volume_id[:4]}-{made.volume_id[4:]}"
    return f"PARTUUID={device.removeprefix(_BY_PARTUUID)}"


def _crypttab(plan: Plan, tpm2: bool) -> Iterator[str]:
    for one in _of(plan, Luks):
        if one.name == names.DATA:
            # The passphrase of the root opens it: systemd asks for both but once.
            yield f"{one.name} UUID={one.uuid} none {','.join(['luks', *_unlocking(tpm2)])}"
