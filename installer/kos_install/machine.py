# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine is: firmware, memory, processors, disks, addresses. Small reads, nothing slow."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node import facts

_EFI = "sys/firmware/efi"
# UEFI Specification: the global variables; four bytes of attributes come before the value.
_SECURE_BOOT = f"{_EFI}/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@dataclass(frozen=True)
class Disk:
    """A whole disk: path, size in bytes, model."""

    path: str
    size: int
    model: str


@dataclass(frozen=True)
class Machine:
    """What the console shows of a machine."""

    cores: int
    memory_mb: int
    secure_boot: str
    disks: tuple[Disk, ...]
    addresses: tuple[str, ...]
    cards: tuple[str, ...] = ()


def look() -> Machine:
    """This machine, now."""
    found = facts.facts()
    return Machine(found["cpu"], found["memory_mb"], secure_boot(), _disks(), _addresses(), cards())


def secure_boot(system: Path = Path("/")) -> str:
    """Whether the firmware checked what it started, in words."""
    if not (system / _EFI).is_dir():
        return "none: this machine was started by a BIOS"
    try:
        value = (system / _SECURE_BOOT).read_bytes()
    except OSError:
        return "unknown: the firmware does not say"
    return "on" if value[4:] == b"\x01" else "off"


def disks(listing: Mapping[str, Any]) -> tuple[Disk, ...]:
    """The disks in what ``lsblk --json --bytes`` says."""
    rows = (row for row in listing["blockdevices"] if row["type"] == "disk" and row["size"])
    return tuple(Disk(row["path"], int(row["size"]), (row["model"] or "").strip()) for row in rows)


def addresses(listing: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The addresses in what ``ip --json address`` says, but for those of this machine to itself."""
    return tuple(
        f"{one['local']} ({row['ifname']})"
        for row in listing
        for one in row.get("addr_info", ())
        if one.get("scope") == "global"
    )


def cards(system: Path = Path("/")) -> tuple[str, ...]:
    """The network cards that have a driver: bridges and the like have no device."""
    return tuple(sorted(path.name for path in (system / "sys/class/net").glob("*") if (path / "device").exists()))


def _disks() -> tuple[Disk, ...]:
    return disks(_asked(["lsblk", "--json", "--bytes", "--nodeps", "--output", "PATH,SIZE,TYPE,MODEL"], "blockdevices"))


def _addresses() -> tuple[str, ...]:
    return addresses(_asked(["ip", "--json", "address"], ""))


def _asked(argv: list[str], empty: str) -> Any:
    """What a program says as JSON; nothing where it cannot."""
    try:
        done = subprocess.run(argv, capture_output=True, check=True, text=True, timeout=20)
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {empty: []} if empty else []


def short_of(machine: Machine, minimum: Mapping[str, Any], medium: Path | None) -> list[str]:
    """What a profile asks for and this machine lacks; of its disks the largest counts, but not the medium."""
    # Slow to load, and of no use before the screen is there.
    from ansible_collections.kind.kos.plugins.plugin_utils import hardware
    from ansible_collections.kind.kos.plugins.plugin_utils.profile import Minimum

    largest = max((disk.size for disk in machine.disks if disk.path != str(medium)), default=0)
    seen = hardware.Facts.model_validate({**facts.facts(), "disk_gb": largest // 10**9})
    rows = hardware.shortfalls(seen, Minimum.model_validate(minimum), set())
    return [f"{row.what}: {row.need} needed, {row.have} here" for row in rows]
