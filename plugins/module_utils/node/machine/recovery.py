# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The boot entry for a person who has to repair the node: the system that came up well last, with nothing but a shell.

Who chooses it is asked for the disk's passphrase by kos-recovery.service, however the disk was opened.
"""

from __future__ import annotations

import os
import re

from .. import files
from ..files import NodeError
from . import fatfiles, grubstate, slots

TITLE = "kOS (recovery)"
ARGUMENT = "systemd.unit=kos-recovery.target"
# Not kos-*: it is never what boots by itself, and no slot.
ENTRY = "loader/entries/recovery-kos.conf"
GRUB_ENTRY = f"{slots.FILES}/rescue/entry.cfg"
_OF_GRUB = re.compile(r"^\s*linux \S+ (.*)$", re.MULTILINE)
_OF_LOADER = re.compile(r"^\s*options (.*)$", re.MULTILINE)


def offer(esp: str, number: int) -> None:
    """Let the boot menu of an ESP have it, of slot `number`. Raises NodeError, OSError.

    Where only programs start that are signed with the node's own keys (slots of the kind ``uki``) there is none: the
    arguments are inside of them.
    """
    slot = next((slot for slot in slots.listing(esp) if slot.number == number), None)
    if slot is None or slot.kind == "uki":
        return
    text = (files.read(slot.path) or b"").decode()
    found = (_OF_GRUB if slot.kind == "grub" else _OF_LOADER).search(text)
    if found is None:
        raise NodeError(f"{slot.path} is no boot entry of kOS: there is no recovery entry of it")
    here = f"/{slots.FILES}/{number}"
    if slot.kind == "grub":
        made = grubstate.entry("rescue", TITLE, f"{here}/linux", f"{here}/initrd", f"{found[1]} '{ARGUMENT}'")
        path = os.path.join(esp, GRUB_ENTRY)
    else:
        made = (
            f"linux {here}/linux\ninitrd {here}/initrd\ntitle {TITLE}\nsort-key kos-recovery\n"
            f"options {found[1]} {ARGUMENT}\n"
        )
        path = os.path.join(esp, ENTRY)
    if files.read(path) != made.encode():
        fatfiles.write(path, made.encode())
