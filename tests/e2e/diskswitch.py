# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One switch of the system on a mounted EFI partition, by the node's own code: what a power cut is replayed over.

    python3 diskswitch.py CODE ESP NUMBER [KIND]

CODE is a folder with kos_node, as a generation has it. Slot NUMBER is staged, published and blessed; the one two before
it is removed, as an update does. What each consists of follows from its number alone, so a judge knows what is whole:
`content`, and `bootloaders` in tests/unit, which knows what systemd-boot and GRUB start.
"""

from __future__ import annotations

import os
import sys
import tempfile

SIZES = {"kernel": 700_000, "initrd": 1_500_000}


def content(name: str, number: int) -> bytes:
    """The kernel or initrd of a slot."""
    line = f"{name} of {number} ".encode()
    return (line * (SIZES[name] // len(line) + 1))[: SIZES[name]]


def arguments(number: int) -> list[str]:
    """Of a slot's kernel."""
    return ["rw", f"rootflags=subvol=@root.{number}"]


def switch(esp: str, number: int, kind: str = "entries") -> None:
    """Make slot `number` what boots. Raises NodeError, OSError."""
    from kos_node.machine import slots

    with tempfile.TemporaryDirectory() as work:
        paths = []
        for name in SIZES:
            paths.append(os.path.join(work, name))
            with open(paths[-1], "wb") as stream:
                stream.write(content(name, number))
        first = not slots.listing(esp)
        entry = slots.Entry(number, f"kOS, system {number}", *paths, arguments(number), None if first else 3)
        slots.stage(esp, entry, kind)
    slots.publish(esp, number)
    if not first:
        slots.bless(esp, number)
    for slot in slots.listing(esp):
        if slot.number < number - 1:
            slots.remove(esp, slot.number)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    switch(sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
