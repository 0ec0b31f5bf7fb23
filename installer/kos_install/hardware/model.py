# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine, as data: detected here, or described in a file for dry runs and tests.

Sizes and offsets are in bytes. Every field has a value that means *unknown*: a description may be short.
"""

from __future__ import annotations

from typing import Literal

from ansible_collections.kind.kos.plugins.module_utils.node.machine.signatures import Holder
from ansible_collections.kind.kos.plugins.plugin_utils.models import Strict


class Partition(Strict):
    """A partition. `type` and `uuid` are GPT's, in lower case; `os` is what is installed there, in words."""

    number: int
    start: int
    size: int
    path: str = ""
    type: str = ""
    uuid: str = ""
    label: str = ""
    holds: Holder = ""
    filesystem: str = ""
    fs_uuid: str = ""
    fs_label: str = ""
    os: str = ""
    mounted: str = ""


class Disk(Strict):
    """A whole disk. `table`: gpt, dos or empty. `holds` is what lies on it without a partition table."""

    path: str
    size: int
    model: str = ""
    serial: str = ""
    bus: Literal["", "nvme", "sata", "usb", "virtio", "scsi", "mmc"] = ""
    by_id: list[str] = []
    sector: Literal[512, 4096] = 512
    removable: bool = False
    read_only: bool = False
    rotational: bool = False
    medium: bool = False
    table: Literal["", "gpt", "dos"] = ""
    holds: Holder = ""
    filesystem: str = ""
    fs_uuid: str = ""
    partitions: list[Partition] = []
    holders: list[str] = []
    journal: bool = False
    # it has partitions of an install that ended before its journal began: nothing is in them
    unbegun: bool = False
    # the digest of the answers that a finished install on it was made by
    installed: str = ""


class Nic(Strict):
    """A network card."""

    name: str
    mac: str = ""
    wireless: bool = False
    carrier: bool = False
    driver: str = ""


class Machine(Strict):
    """`firmware`: what started it; `secure_boot`: enforced, setup (no keys are enrolled) or off."""

    architecture: Literal["amd64", "arm64"] = "amd64"
    firmware: Literal["uefi", "bios"] = "uefi"
    secure_boot: Literal["on", "setup", "off"] = "off"
    tpm2: bool = False
    fido2: bool = False
    cpu: int = 2
    memory_mb: int = 4096
    gpu: list[str] = []
    nics: list[Nic] = []
    disks: list[Disk] = []
    name: str = ""
    # of its maker (SMBIOS)
    uuid: str = ""
