# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's disk as folders: its subvolumes, its EFI partitions, what runs. What a crash left of it can be run on."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import bootloaders

from ansible_collections.kind.kos.plugins.module_utils.node import bundle, files, system
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import (
    candidate,
    data,
    fatfiles,
    grubstate,
    layout,
    slots,
    system_update,
    systems,
    uki,
)
from ansible_collections.kind.kos.plugins.module_utils.node.machine.systems import Known, Record

_FSTAB = (
    "# made by the installer, subvol=@var of it\nUUID=x / btrfs noatime 0 0\n"
    "UUID=x /var btrfs subvol=@var,noatime 0 0\nUUID=x /var/log btrfs subvol=@log,noatime 0 0\n"
    "UUID=x /home btrfs noatime,subvol=@home 0 0\n"
)
_STARTS = {"entries": bootloaders.systemd_boot, "uki": bootloaders.systemd_boot, "grub": bootloaders.grub}


@contextlib.contextmanager
def _built(kernel, initrd, arguments, title, number, key):
    program = Path(kernel).with_name("program.efi")
    program.write_bytes(b"MZ" + Path(kernel).read_bytes() + " ".join(arguments).encode())
    yield str(program)


class Node:
    """Subvolumes are folders, a snapshot is a copy; nothing is mounted."""

    def __init__(self, folder: Path, monkeypatch, partitions=1, kind="entries"):
        self.folder, self.kind, self.monkeypatch = folder, kind, monkeypatch
        self.top, self.root = folder / "top", Root(str(folder))
        self.places = ["/efi", "/efi-2"][:partitions]
        self.there = list(self.places)
        self._own()

    def install(self):
        """As the installer leaves it, with a person's data."""
        for name in ("@root.0", "@root.1"):
            files.write(str(self.top / name / "etc/fstab"), _FSTAB.encode())
        for name in ("@var.0/lib/fresh", "@var/lib/mine", "@home.0/fresh", "@home/mine"):
            files.write(str(self.top / name), b"")
        rows = "".join(f"UUID={place} {place} vfat nofail 0 2\n" for place in self.places)
        files.write(self.root.join(layout.FSTAB), rows.encode())
        self.run(1)
        for place in self.places:
            esp = self.folder / place[1:]
            esp.mkdir()
            if self.kind == "grub":
                fatfiles.write(str(esp / "grub/grub.cfg"), grubstate.configuration().encode())
            made = system_update.entry_of(1, 1, self._kernel(1), ["rw", "rootflags=subvol=@root.1"])
            slots.stage(str(esp), slots.Entry(**{**vars(made), "tries": None}), self.kind)
            slots.publish(str(esp), 1)
        self.remember(Record({1: Known(1, why="install", state="good")}, last=4))
        return self

    def at(self, state: Path):
        """The same node, as a crash left it."""
        other = Node(state, self.monkeypatch, len(self.places), self.kind)
        other.there = list(self.there)
        return other.run(self.running)

    def _own(self):
        """All that looks at a machine looks at this one."""
        patch = self.monkeypatch.setattr
        for module in (layout, candidate):
            patch(module, "TOP", str(self.top))
        patch(layout, "UNMOUNTED", str(self.folder))
        patch(layout, "LOCK", str(self.folder.parent / "lock"))
        patch(layout, "apart", lambda: None)
        patch(layout, "mount_top", lambda _here: str(self.top))
        patch(layout, "esps", lambda: [f"{self.folder}{place}" for place in self.there])
        patch(data, "top_of_var", lambda: str(self.top))
        patch(candidate, "_no_dpkg", contextlib.nullcontext)
        patch(candidate, "_ROOM", 0)
        patch(candidate, "entered", lambda _here, _number: contextlib.nullcontext())
        patch(candidate, "as_it_is", self._kernel)
        patch(candidate, "upgrade", lambda number, _source: self._kernel(number))
        patch(candidate, "forget_cache", lambda: None)
        patch(bundle, "source_of", lambda _root: None)
        patch(system_update, "_note_baseline", lambda _root: None)
        patch(system_update.secureboot, "key", lambda _root: None)
        patch(uki, "built", _built)
        patch(system, "run", self._program)

    def _kernel(self, number):
        folder = self.folder.parent / "boot"
        folder.mkdir(exist_ok=True)
        for name in ("linux", "initrd"):
            (folder / f"{name}.{number}").write_bytes(f"{name} of {number} ".encode() * 30)
        return candidate.Upgraded(["a"], "6.12", str(folder / f"linux.{number}"), str(folder / f"initrd.{number}"))

    def _program(self, argv, stdin=None, check=True, timeout=None, environment=None):
        if argv[:3] == ["btrfs", "subvolume", "snapshot"]:
            assert not os.path.exists(argv[-1]), "it would be made inside of the one that is there"
            shutil.copytree(argv[-2], argv[-1])
        elif argv[:3] == ["btrfs", "subvolume", "delete"]:
            shutil.rmtree(argv[-1])
        elif argv[0] == "cp":
            shutil.copytree(argv[-2], os.path.join(argv[-1], os.path.basename(argv[-2])), dirs_exist_ok=True)
        return SimpleNamespace(stdout=b"", returncode=0)

    def run(self, number, own_root=None):
        """Start boot entry `number`: what is mounted then is what its root's own fstab says."""
        own_root = own_root or number
        self.running = number
        files.write(self.root.join(layout.CMDLINE), f"rw rootflags=subvol=@root.{own_root} kos.slot={number}".encode())
        mounted = self.mounts(own_root)
        lines = [f"22 1 0:21 /@root.{own_root} / rw - btrfs /dev/mapper/kos-root rw\n"]
        lines += [f"22 1 0:21 /{name} {place} rw - btrfs /dev/mapper/kos-root rw\n" for place, name in mounted.items()]
        files.write(self.root.join(layout.MOUNTS), "".join(lines).encode())
        var = self.folder / "var"
        if var.is_symlink():
            var.unlink()
        elif var.exists():
            shutil.rmtree(var)  # a copy of a machine has no link there
        var.symlink_to(f"top/{mounted['/var']}")
        return self

    def mounts(self, own_root):
        """What a root's fstab says, read as mount(8) does."""
        rows = (self.top / f"@root.{own_root}/etc/fstab").read_text().splitlines()
        found = {row.split()[1]: row.split()[3] for row in rows if not row.startswith("#")}
        return {
            place: next(word for word in found[place].split(",") if word.startswith("subvol="))[7:]
            for place in ("/var", "/home")
        }  # fmt: skip

    def remember(self, record):
        systems.save(self.root, record)

    def record(self):
        return systems.load(self.root)

    def starts(self, place="/efi"):
        """The number of what firmware starts from this partition."""
        first = _STARTS[self.kind](self.folder / place[1:])[0]
        return int(re.search(rb"linux of (\d+) ", first.kernel)[1])

    def fail(self, number, place="/efi"):
        """Start it until no try is left, as the boot loader counts."""
        esp = self.folder / place[1:]
        if self.kind == "grub":
            state = grubstate.read(str(esp))
            grubstate.write(str(esp), grubstate.State(state.good, state.previous, number, 0))
        for path in [*esp.glob(f"loader/entries/kos-{number}+*"), *esp.glob(f"EFI/Linux/kos-{number}+*")]:
            path.rename(path.with_name(f"kos-{number}+0-3{path.suffix}"))

    def numbers(self, place="/efi"):
        return [slot.number for slot in slots.listing(str(self.folder / place[1:]))]

    def subvolumes(self):
        return sorted(path.name for path in self.top.iterdir())

    def whole(self, *places):
        """Whatever firmware starts, from wherever, has its root and its data."""
        for place in places or self.places:
            number = self.starts(place)
            assert f"@root.{number}" in self.subvolumes(), f"{place} starts system {number}, whose root is gone"
            assert {*self.mounts(number).values()} <= {*self.subvolumes()}, f"{place} starts {number} without its data"
        return number
