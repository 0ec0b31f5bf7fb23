# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody asked for: a profile as a medium of some kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kos_install.answers import Answers

from . import definition
from .definition import Architecture
from .errors import UsageError

# What is made of a profile beside media that boot, and how its file ends.
OTHERS = {"nocloud": "img", "oci": "tar", "bundle": "kos"}
OUTPUTS = (*definition.outputs(), *OTHERS)
# RFC 1123, without dots: the name of one machine.
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
LIVE, NODES = ("usb", "portable"), ("disk", "qcow2", "pi")
_NEXT = {
    "usb": "kos-image write {name} DEVICE, or try it first: kai lab boot {name}",
    "portable": "kos-image write {name} DEVICE, or try it first: kai lab boot {name} --grow 8G",
    "qcow2": "kos-image build --profile {profile} --output nocloud --ssh-key FILE, and give the machine both",
    "disk": "kos-image write {name} DEVICE, or give it to a virtual machine",
    "pi": "kos-image write {name} DEVICE",
    "bundle": "kai deploy -i INVENTORY --bundle {name}",
    "nocloud": "start a virtual machine with the qcow2 as its first disk and {name} as its second",
    "oci": "skopeo inspect oci-archive:{name}",
}
_FIRST_START = (
    "; its first start encrypts it, and asks for a passphrase on its screen and serial line, unless you put a file "
    "`passphrase` on the small partition of the written card"
)


@dataclass(frozen=True)
class Asked:
    """The command line of a build. `layers` are the names or files of environment, site, user and configs.

    `test`: a medium for tests, which unlocks disks more cheaply than anybody should; it says so of itself.
    `answers`: those of the installer, for a card, in the place of `hostname` and `ssh_keys`.
    `in_clear`: a card that its first start does not encrypt.
    `secure_boot`: key and certificate (PEM) of whoever signs the kernel image; None is Debian's own chain.
    """

    profile: str
    output: str
    architecture: Architecture
    to: Path | None = None
    locks: Path | None = None
    layers: Mapping[str, str | None] = field(default_factory=dict)
    models: tuple[Path, ...] = ()
    secure_boot: tuple[Path, Path] | None = None
    hostname: str = ""
    ssh_keys: tuple[Path, ...] = ()
    test: bool = False
    in_clear: bool = False
    answers: Answers | None = None

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise UsageError(f"there is no output '{self.output}': one of {', '.join(OUTPUTS)}")
        given = {
            "--secure-boot-key": (self.secure_boot, LIVE),
            "--ssh-key": (self.ssh_keys, (*NODES, "nocloud")),
            "--hostname": (self.hostname, (*NODES, "nocloud")),
            "--test-medium": (self.test, LIVE),
            "--answers": (self.answers, ("pi",)),
            "--no-encryption": (self.in_clear, ("pi",)),
            "--model": (self.models, (*definition.outputs(), "bundle")),
        }
        if self.hostname and not _HOSTNAME.fullmatch(self.hostname):
            raise UsageError(f"'{self.hostname}' is no name for a machine: letters, digits and hyphens, at most 63")
        for option, (value, outputs) in given.items():
            if value and self.output not in outputs:
                raise UsageError(f"{option} is for {', '.join(outputs)}, not for {self.output}: leave it out")

        if self.answers and (self.hostname or self.ssh_keys):
            raise UsageError("--answers has the name of the machine and its keys: leave --hostname and --ssh-key away")

    @property
    def seeded(self) -> bool:
        """Whether it is told who may log in."""
        return bool(self.ssh_keys or self.answers)

    @property
    def is_medium(self) -> bool:
        """Whether it boots."""
        return self.output not in OTHERS

    @property
    def has_bundle(self) -> bool:
        """Whether what the profile installs is on it."""
        return self.is_medium or self.output == "bundle"

    @property
    def scope(self) -> str:
        """What names it in the cache."""
        return f"{self.profile}-{self.output}-{self.architecture}"

    @property
    def file_name(self) -> str:
        """What its file is called unless somebody says otherwise."""
        ending = OTHERS.get(self.output, "qcow2" if self.output == "qcow2" else "raw")
        return f"kos-{self.scope}{'-test' if self.test else ''}.{ending}"

    def next(self, name: str) -> str:
        """What to do with the result, whose file is called `name`, as a command."""
        said = _NEXT[self.output].format(name=name, profile=self.profile)
        if self.output == "pi" and not self.in_clear:
            said += _FIRST_START
        if self.output in ("disk", "pi") and not self.seeded:
            said += "; nobody can log in to it yet: build it with --ssh-key FILE"
        return said
