# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB on a BIOS: a configuration that is written once, and a state of 1024 bytes that is overwritten in place.

systemd-boot counts tries in the names of entries; GRUB counts them in its environment block, which it can write itself
where that lies on a plain FAT (never on btrfs, LUKS or RAID).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace

from .. import files
from . import fatfiles

FOLDER = "grub"
ENVIRONMENT, CONFIGURATION = f"{FOLDER}/grubenv", f"{FOLDER}/grub.cfg"
MOST_TRIES = 3
# GRUB wants exactly this size (lib/envblk.h), and rewrites it without asking for another cluster.
_SIZE, _SECTOR = 1024, 512
_HEAD = "# GRUB Environment Block\n"

_TEXT = """\
# Written once, never changed: what boots is said by grubenv. kos_tries of kos_candidate are counted down before it is
# started; where that cannot be written, or none is left, kos_good is started.
set timeout=3
if serial --unit=0 --speed=115200; then
  terminal_input console serial
  terminal_output console serial
fi
load_env kos_good kos_previous kos_candidate kos_tries
set default="kos-$kos_good"
set fallback="kos-$kos_previous"
set left=
if [ "$kos_tries" = 3 ]; then set left=2; fi
if [ "$kos_tries" = 2 ]; then set left=1; fi
if [ "$kos_tries" = 1 ]; then set left=0; fi
if [ -n "$kos_candidate" -a -n "$left" ]; then
  set kos_tries=$left
  if save_env kos_tries; then
    set default="kos-$kos_candidate"
    set fallback="kos-$kos_good"
  fi
fi
for slot in "$kos_candidate" "$kos_good" "$kos_previous" rescue; do
  if [ -f "/kos/$slot/entry.cfg" ]; then source "/kos/$slot/entry.cfg"; fi
done
"""


@dataclass(frozen=True)
class State:
    """Which slots GRUB knows: the one that is good, the one before it, one that is on trial with so many tries left."""

    good: int | None = None
    previous: int | None = None
    candidate: int | None = None
    tries: int | None = None

    def following(self, other: State, number: int) -> State:
        """With slot `number` as `other` has it, but not instead of a newer one that is good."""
        if number == other.good and (self.good is None or self.good < number):
            return replace(self, good=number, previous=self.good or self.previous)
        if number == other.candidate:
            return replace(self, candidate=number, tries=other.tries)
        return replace(self, previous=number)


def configuration() -> str:
    """The text of grub.cfg."""
    return _TEXT


def read(esp: str) -> State:
    """What GRUB has noted last; nothing known where there is no such file."""
    content = files.read(os.path.join(esp, ENVIRONMENT)) or b""
    rows = (line.partition("=") for line in content.decode(errors="replace").splitlines())
    found = {key.removeprefix("kos_"): int(value) for key, _equals, value in rows if value.isdecimal()}
    return State(**{entry.name: found.get(entry.name) for entry in fields(State)})


def write(esp: str, state: State) -> None:
    """Note another state: one sector is written in place, so it is the old or the new one. Raises OSError."""
    path = os.path.join(esp, ENVIRONMENT)
    text = _HEAD + "".join(f"kos_{key}={value}\n" for key, value in vars(state).items() if value is not None)
    content = text.encode()
    if len(content) > _SECTOR:
        raise fatfiles.NotOnFat(f"{path} must fit into one sector, it has {len(content)} bytes")
    content = content.ljust(_SIZE, b"#")
    if os.path.exists(path) and os.path.getsize(path) == _SIZE:
        fatfiles.overwrite(path, content)
    else:
        fatfiles.write(path, content)


def entry(number: int | str, title: str, kernel: str, initrd: str, arguments: str) -> str:
    """One line of the menu, as a file of its own."""
    return f"menuentry '{title}' --id kos-{number} {{\n  linux {kernel} {arguments}\n  initrd {initrd}\n}}\n"
