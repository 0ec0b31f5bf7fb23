# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions of a plan: a flat list, each with an id and what it needs; `kos_install.actions` carries them out.

An action that destroys says so (`wipe`), and what must not change is named (`preserve`): both are checked again against
the machine right before they are carried out.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from ansible_collections.kind.kos.plugins.plugin_utils.models import Strict


class Target(Strict):
    """A disk as the plan knew it; right before it is written to it must still be this one."""

    path: str
    serial: str
    size: int


class Base(Strict):
    """What every action has. `needs`: ids of actions before it."""

    id: str
    needs: list[str] = []


class Release(Base):
    """Let go of what holds a disk: mounts, swap, LVM, RAID, dm-crypt; top first."""

    kind: Literal["release"] = "release"
    disk: Target


class Wipe(Base):
    """Remove every signature: of the partitions first, then of the disk."""

    kind: Literal["wipe"] = "wipe"
    disk: Target


class Partitioned(Strict):
    """A partition that is made. `start` and `size` in bytes."""

    number: int
    label: str
    type: str
    uuid: str
    start: int
    size: int


class Kept(Strict):
    """A partition that stays as it is, to the byte; `uuid` is GPT's. Into a `shared` one the boot files are added."""

    number: int
    start: int
    size: int
    uuid: str
    what: str = ""
    shared: bool = False


class Table(Base):
    """The partition table: a new one (`wipe`), called `uuid`, or partitions beside those that stay (`preserve`)."""

    kind: Literal["table"] = "table"
    disk: Target
    wipe: bool
    uuid: str = ""
    make: list[Partitioned]
    preserve: list[Kept] = []
    # empty ones, which an install made that ended before its journal
    remove: list[Kept] = []


class Journal(Base):
    """The install's journal begins, in its own partition: what was done before is in it."""

    kind: Literal["journal"] = "journal"
    device: str


class Luks(Base):
    """A partition is formatted as LUKS2 and opened as /dev/mapper/NAME; with a recovery key where one is asked for."""

    kind: Literal["luks"] = "luks"
    device: str
    name: str
    uuid: str
    memory_kib: int
    iterations: int
    threads: int
    recovery_key: bool


class Btrfs(Base):
    """A btrfs over one device or a mirror of two, with its subvolumes."""

    kind: Literal["btrfs"] = "btrfs"
    devices: list[str]
    label: str
    uuid: str
    subvolumes: list[str]


class Fat(Base):
    """A FAT32 for the firmware."""

    kind: Literal["fat"] = "fat"
    device: str
    label: str
    volume_id: str


class Mount(Base):
    """Everything is mounted below the target, in this order: (what, where, options)."""

    kind: Literal["mount"] = "mount"
    mounts: list[tuple[str, str, str]]


class Unpack(Base):
    """The system image of the medium goes into the target."""

    kind: Literal["unpack"] = "unpack"


class Configure(Base):
    """What makes the target this machine: fstab, host name, users, network, locale, identity."""

    kind: Literal["configure"] = "configure"


class Converge(Base):
    """The playbook of every other door, against the target: its generation is pending until the first boot."""

    kind: Literal["converge"] = "converge"


class Boot(Base):
    """Kernel, initrd and boot loader, all but what would make the firmware start them.

    `beside`: another system is on the disk, so that nothing but an entry in the firmware's list leads here.
    """

    kind: Literal["boot"] = "boot"
    loader: Literal["systemd-boot", "grub"]
    esps: list[str]
    uki: bool = False
    shared_esp: bool = False
    beside: bool = False


class Verify(Base):
    """Prove that it is as asked; nothing is believed that an action said before."""

    kind: Literal["verify"] = "verify"


class Finish(Base):
    """Make it bootable: the loader gets its name, the firmware its entry. The last thing that happens."""

    kind: Literal["finish"] = "finish"


_Disk = Release | Wipe | Table | Journal | Luks | Btrfs | Fat
_System = Mount | Unpack | Configure | Converge | Boot | Verify | Finish
Action = Annotated[_Disk | _System, Field(discriminator="kind")]


class Plan(Strict):
    """What will happen, in order."""

    version: Literal[1] = 1
    actions: list[Action]
    warnings: list[str] = []

    def digest(self) -> str:
        """SHA-256 over the plan: what a person confirmed, and what a journal belongs to."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def digest_of(action: Base) -> str:
    """SHA-256 over an action: the input hash of its records in the journal."""
    return hashlib.sha256(json.dumps(action.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
