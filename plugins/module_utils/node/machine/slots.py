# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The boot entries of numbered roots (slots) on an EFI system partition, mounted somewhere: make, publish, bless, drop.

Three kinds. ``entries``: kernel and initrd in kos/NUMBER, and loader/entries/kos-NUMBER[+TRIES].conf, for systemd-boot
with Debian's signed kernel. ``uki``: one program EFI/Linux/kos-NUMBER[+TRIES].efi, signed with the node's own key.
``grub``: kos/NUMBER with an entry.cfg, and tries counted in grubenv, for a BIOS.

What an entry needs is whole and on disk before it can be chosen, and nothing here touches the files of another slot: at
every moment what booted before boots.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .. import files
from ..files import NodeError
from . import fatfiles, grubstate, uki
from .uki import Key

KINDS = ("entries", "uki", "grub")
FILES = "kos"
_FOLDERS = {"entries": "loader/entries", "uki": "EFI/Linux"}
_SUFFIXES = {"entries": ".conf", "uki": ".efi"}
# systemd's Automatic Boot Assessment: NAME[+TRIES_LEFT[-TRIES_DONE]].SUFFIX
_NAME = re.compile(r"^kos-(\d+)(?:\+(\d+)(?:-(\d+))?)?\.(?:conf|efi)$")
_TRIES = re.compile(r"^# tries: (\d)$", re.MULTILINE)
_ROOT = re.compile(rb"\bsubvol=/?@root\.(\d+)")
# Tells the system that runs which entry it was started by.
ARGUMENT = "kos.slot="
# systemd-boot puts entries with the same key together, the highest version first.
_SORT_KEY = "kos"


class NoSuchSlot(NodeError):
    """There is no boot entry with this number, or not one of which this could be said."""


@dataclass(frozen=True)
class Entry:
    """What boots: slot `number`, its kernel and initrd (paths of files), all arguments; `tries` None: it is proved."""

    number: int
    title: str
    kernel: str
    initrd: str
    arguments: Sequence[str]
    tries: int | None = None

    def __post_init__(self) -> None:
        """Raises NoSuchSlot for what a boot loader could not be told."""
        if any(letter in word for word in (self.title, *self.arguments) for letter in "'\n"):
            raise NoSuchSlot(f"a boot entry can hold no quotation mark and no line break: {self.title!r}")
        if self.number < 1 or (self.tries is not None and not 1 <= self.tries <= grubstate.MOST_TRIES):
            raise NoSuchSlot(f"slot {self.number} with {self.tries} tries: slots count from 1, tries from 1 to 3")

    @property
    def all_arguments(self) -> list[str]:
        """The arguments, and which entry this is."""
        return [*(word for word in self.arguments if not word.startswith(ARGUMENT)), f"{ARGUMENT}{self.number}"]


@dataclass(frozen=True)
class Slot:
    """A boot entry that is there. `left` None: it is proved; 0: it failed. `staged`: it is not to be chosen yet."""

    number: int
    kind: str
    path: str
    left: int | None = None
    done: int = 0
    staged: bool = False

    @property
    def good(self) -> bool:
        """Whether it has come up well once."""
        return self.left is None and not self.staged


def stage(esp: str, entry: Entry, kind: str, key: Key | None = None) -> None:
    """Put everything of `entry` on the ESP, on disk, but so that nothing starts it yet. Raises NodeError, OSError.

    `key` signs a ``uki``. What an interrupted attempt with the same number left is replaced; a published one is not.
    """
    if has(esp, entry.number, published=True):
        raise NoSuchSlot(f"slot {entry.number} has a boot entry already: a new attempt takes a new number")
    fatfiles.require_room(esp, os.path.getsize(entry.kernel) + os.path.getsize(entry.initrd))
    _drop(esp, entry.number)
    if kind == "uki":
        with uki.built(entry.kernel, entry.initrd, entry.all_arguments, entry.title, entry.number, key) as program:
            fatfiles.copy(program, _path(esp, entry, kind), masked=True)
        return
    folder = os.path.join(esp, FILES, str(entry.number))
    fatfiles.copy(entry.kernel, os.path.join(folder, "linux"))
    fatfiles.copy(entry.initrd, os.path.join(folder, "initrd"))
    if kind == "entries":
        fatfiles.write(_path(esp, entry, kind), _text(entry).encode(), masked=True)
    else:
        tries = "" if entry.tries is None else f"# tries: {entry.tries}\n"
        here = f"/{FILES}/{entry.number}"
        arguments = " ".join(f"'{word}'" for word in entry.all_arguments)
        text = grubstate.entry(entry.number, entry.title, f"{here}/linux", f"{here}/initrd", arguments)
        fatfiles.write(os.path.join(folder, "entry.cfg"), (tries + text).encode())


def _path(esp: str, entry: Entry, kind: str) -> str:
    tries = "" if entry.tries is None else f"+{entry.tries}"
    return os.path.join(esp, _FOLDERS[kind], f"kos-{entry.number}{tries}{_SUFFIXES[kind]}")


def _text(entry: Entry) -> str:
    """A boot entry of type 1. The line without which it counts for nothing comes first: its first byte is masked."""
    here = f"/{FILES}/{entry.number}"
    return (
        f" linux {here}/linux\ninitrd {here}/initrd\ntitle {entry.title}\nsort-key {_SORT_KEY}\n"
        f"version {entry.number}\noptions {' '.join(entry.all_arguments)}\n"
    )


def publish(esp: str, number: int) -> None:
    """Let a staged entry be chosen, from the next start on: one sector is written. Raises NoSuchSlot, OSError."""
    for slot in _of(esp, number):
        if not slot.staged:
            continue
        if slot.kind != "grub":
            fatfiles.unmask(slot.path)
        elif slot.left is None:
            grubstate.write(esp, grubstate.State(number, grubstate.read(esp).good))
        else:
            grubstate.write(esp, replace(grubstate.read(esp), candidate=number, tries=slot.left))


def copy(source: str, esp: str, slot: Slot) -> None:
    """Have on `esp` what the ESP `source` has of a slot that may be started: nothing starts it before it is whole.

    Raises NodeError, OSError.
    """
    inside = os.path.join(FILES, str(slot.number))
    folder = os.path.join(source, inside)
    # What names the others comes last.
    names = sorted(os.listdir(folder) if os.path.isdir(folder) else (), key=lambda name: name.endswith(".cfg"))
    paths = [slot.path, *(os.path.join(folder, name) for name in names)]
    fatfiles.require_room(esp, sum(map(os.path.getsize, paths)))
    _drop(esp, slot.number)
    for name in names:
        fatfiles.copy(os.path.join(folder, name), os.path.join(esp, inside, name))
    if slot.kind == "grub":
        grubstate.write(esp, grubstate.read(esp).following(grubstate.read(source), slot.number))
        return
    path = os.path.join(esp, os.path.relpath(slot.path, source))
    fatfiles.copy(slot.path, path, masked=True)
    fatfiles.unmask(path)


def root_of(slot: Slot) -> int:
    """The number of the root subvolume that an entry starts; its own where it does not say. Raises OSError."""
    found = _ROOT.search(files.read(slot.path) or b"")
    return int(found[1]) if found else slot.number


def listing(esp: str) -> list[Slot]:
    """Every boot entry of a slot, by number. Raises OSError."""
    found = [slot for kind in _FOLDERS for slot in _counted(esp, kind)]
    return sorted([*found, *_of_grub(esp)], key=lambda slot: slot.number)


def has(esp: str, number: int, published: bool = False) -> bool:
    """Whether an ESP has a boot entry of this slot; `published`: one that may be started. Raises OSError."""
    return any(slot.number == number and not (published and slot.staged) for slot in listing(esp))


def _counted(esp: str, kind: str) -> list[Slot]:
    folder = os.path.join(esp, _FOLDERS[kind])
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = []
    for name in names:
        match = _NAME.match(name)
        if match and name.endswith(_SUFFIXES[kind]):
            path, left, done = os.path.join(folder, name), match[2], match[3]
            staged = fatfiles.masked(path)
            found.append(Slot(int(match[1]), kind, path, int(left) if left else None, int(done or 0), staged))
    return found


def _of_grub(esp: str) -> list[Slot]:
    state, folder = grubstate.read(esp), os.path.join(esp, FILES)
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name, "entry.cfg")
        content = files.read(path) if name.isdecimal() else None
        if content is None:
            continue
        number, asked = int(name), _TRIES.search(content.decode(errors="replace"))
        tries = int(asked[1]) if asked else None
        if number in (state.good, state.previous):
            found.append(Slot(number, "grub", path))
        elif number == state.candidate:
            left = state.tries or 0
            found.append(Slot(number, "grub", path, left, (tries or left) - left))
        else:
            found.append(Slot(number, "grub", path, tries, staged=True))
    return found


def kind_of(esp: str) -> str:
    """Which kind of entries this ESP has. Raises NoSuchSlot where it has none."""
    if os.path.exists(os.path.join(esp, grubstate.CONFIGURATION)):
        return "grub"
    kinds = [slot.kind for slot in listing(esp)]
    if not kinds:
        raise NoSuchSlot(f"{esp} has no boot entry of kOS: is the EFI system partition mounted there?")
    return kinds[-1]


def _of(esp: str, number: int) -> list[Slot]:
    found = [slot for slot in listing(esp) if slot.number == number]
    if not found:
        raise NoSuchSlot(f"slot {number} has no boot entry on {esp}")
    return found


def bless(esp: str, number: int) -> None:
    """Say that a slot came up well: it is tried no more, it is what boots. Raises NoSuchSlot, OSError."""
    found = _of(esp, number)
    published = [slot for slot in found if not slot.staged]
    if not published:
        raise NoSuchSlot(f"slot {number} was never published on {esp}")
    for slot in published:
        if slot.kind == "grub":
            before = grubstate.read(esp)
            if before.good != number:
                grubstate.write(esp, grubstate.State(number, before.good))
        elif not slot.good:
            fatfiles.rename(slot.path, f"kos-{number}{_SUFFIXES[slot.kind]}")
    for slot in found:
        # A cut while it was renamed left it there twice, one of the two masked.
        if slot.staged and slot.kind != "grub" and fatfiles.masked(slot.path):
            fatfiles.remove(slot.path)


def reject(esp: str, number: int) -> None:
    """Let a slot boot no more unless a person picks it in the menu. Raises NoSuchSlot where no other is good."""
    _require_another(esp, number)
    for slot in _of(esp, number):
        if slot.kind == "grub":
            state = grubstate.read(esp)
            kept = replace(state, candidate=None, tries=None)
            grubstate.write(esp, kept if number != state.good else grubstate.State(state.previous, number))
        elif slot.left != 0:
            fatfiles.rename(slot.path, f"kos-{number}+0-{slot.done or 1}{_SUFFIXES[slot.kind]}")


def remove(esp: str, number: int) -> None:
    """Take a slot's entry and files away, in an order that always leaves the others. Raises NoSuchSlot, OSError."""
    _require_another(esp, number)
    if grubstate.read(esp).good == number:
        reject(esp, number)
    _drop(esp, number)


def _require_another(esp: str, number: int) -> None:
    if not any(slot.good for slot in listing(esp) if slot.number != number):
        raise NoSuchSlot(f"{esp} has no other system that came up well: slot {number} stays")


def _drop(esp: str, number: int) -> None:
    state = grubstate.read(esp)
    if number == state.candidate:
        grubstate.write(esp, replace(state, candidate=None, tries=None))
    elif number == state.previous:
        grubstate.write(esp, replace(state, previous=None))
    for slot in [slot for slot in listing(esp) if slot.number == number and slot.kind != "grub"]:
        fatfiles.remove(slot.path)
    fatfiles.remove_folder(os.path.join(esp, FILES, str(number)))
