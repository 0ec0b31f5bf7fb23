# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This machine as data. Reads only, mounts nothing, and knows no machine that it does not run on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from ansible_collections.kind.kos.plugins.module_utils.node import facts

from . import firmware, reading
from .disks import disks, under
from .model import Machine, Nic
from .reading import Ask, line

# The proved root of a live medium, below the overlay that is seen as /.
_MEDIUM = "dev/mapper/root"


def detect(root: Path = Path("/"), ask: Ask = reading.ask) -> Machine:
    """What this machine is, now; what cannot be read counts as not there."""
    found = facts.facts()
    boots = firmware.boots(root)
    return Machine(
        architecture=_architecture(found["architecture"]),
        firmware=firmware.firmware(root),
        secure_boot=firmware.secure_boot(root),
        tpm2=firmware.tpm2(root),
        fido2=firmware.fido2(root),
        cpu=found["cpu"],
        memory_mb=found["memory_mb"],
        gpu=found["gpus"],
        nics=nics(root),
        disks=disks(root, ask, boots, running(root)),
        name=_name(root),
        uuid=line(root / "sys/class/dmi/id/product_uuid").lower(),
    )


def running(root: Path) -> frozenset[str]:
    """Kernel names of the disks that the running system lies on: the medium's, and whatever / is."""
    found: set[str] = set()
    for place in (root / _MEDIUM, root):
        device = _device(place)
        if device:
            found |= under(root, os.path.basename(os.path.realpath(root / "sys/dev/block" / device)))
    return frozenset(found)


def nics(root: Path) -> list[Nic]:
    """The network cards that have a driver: bridges and the like have no device."""
    places = sorted((root / "sys/class/net").glob("*"))
    return [_nic(place) for place in places if (place / "device").exists()]


def _nic(place: Path) -> Nic:
    driver = place / "device/driver"
    return Nic(
        name=place.name,
        mac=line(place / "address"),
        wireless=(place / "wireless").exists() or (place / "phy80211").exists(),
        carrier=line(place / "carrier") == "1",
        driver=os.path.basename(os.path.realpath(driver)) if driver.exists() else "",
    )


def _device(place: Path) -> str:
    """The number of a block device, or of the one that holds a folder; empty where that is none."""
    if not place.exists():
        return ""
    status = place.stat()
    number = facts.device(str(place)) if place.is_dir() else status.st_rdev
    return f"{os.major(number)}:{os.minor(number)}" if os.major(number) else ""


def _architecture(said: str) -> Literal["amd64", "arm64"]:
    return "arm64" if said == "arm64" else "amd64"


def _name(root: Path) -> str:
    """What the maker calls it."""
    dmi = root / "sys/class/dmi/id"
    said = " ".join(filter(None, (line(dmi / "sys_vendor"), line(dmi / "product_name"))))
    return said or line(root / "proc/device-tree/model")
