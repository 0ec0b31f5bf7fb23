# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd-boot 257 and GRUB would start from an ESP, as their own sources and manuals have it; no code of ours.

And every state in which a power cut may leave a folder while something works in it.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(?P<id>.+?)(?:\+(?P<left>\d+)(?:-(?P<done>\d+))?)?\.(?P<kind>conf|efi)")


@dataclass(frozen=True)
class Started:
    """What runs: the kernel's content, the initrd's, the arguments; for a program its content alone."""

    kernel: bytes
    initrd: bytes = b""
    arguments: str = ""


def systemd_boot(esp: Path) -> list[Started]:
    """What is started first, second … (src/boot/boot.c: boot_entry_compare) of what `default kos-*` names."""
    found = []
    for path in [*(esp / "loader/entries").glob("kos-*.conf"), *(esp / "EFI/Linux").glob("kos-*.efi")]:
        entry = _type1(esp, path) if path.suffix == ".conf" else _type2(path)
        match = _NAME.fullmatch(path.name)
        if entry and match:
            found.append((match["left"] == "0", _newest_first(match["id"]), entry))
    return [entry for _failed, _number, entry in sorted(found, key=lambda row: row[:2])]


def _newest_first(identity: str) -> int:
    return -int(identity.rpartition("-")[2])


def _type1(esp: Path, path: Path) -> Started | None:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    pairs = dict(line.split(None, 1) for line in lines if " " in line and not line.startswith("#"))
    files = [esp / pairs.get(key, "none").lstrip("/") for key in ("linux", "initrd")]
    if "linux" not in pairs or not files[0].is_file():
        return None
    return Started(files[0].read_bytes(), files[1].read_bytes() if files[1].is_file() else b"", pairs["options"])


def _type2(path: Path) -> Started | None:
    content = path.read_bytes()
    return Started(content) if content.startswith(b"MZ") else None


def grub(esp: Path) -> list[Started]:
    """What our grub.cfg starts; the counting in it is done as its lines say."""
    environment = (esp / "grub/grubenv").read_bytes()
    if len(environment) != 1024:
        return []
    known = dict(line.split("=", 1) for line in environment.decode().splitlines() if "=" in line)
    order = [known.get("kos_good"), known.get("kos_previous")]
    if known.get("kos_candidate") and known.get("kos_tries") in ("1", "2", "3"):
        order.insert(0, known["kos_candidate"])
    found = []
    for number in filter(None, order):
        path = esp / f"kos/{number}/entry.cfg"
        words = path.read_text().split() if path.is_file() else []
        if "linux" in words and "initrd" in words:
            kernel, initrd = (esp / words[words.index(key) + 1].lstrip("/") for key in ("linux", "initrd"))
            if kernel.is_file() and initrd.is_file():
                found.append(Started(kernel.read_bytes(), initrd.read_bytes()))
    return found


class PowerCuts:
    """Copies of `folder` as a crash at any moment may leave it, while the block runs.

    What was written and not yet asked to be on disk may be missing: such a file is there empty, and with half of its
    bytes, in states of their own.
    """

    _CALLS = ("fsync", "rename", "unlink", "mkdir", "rmdir")

    def __init__(self, folder: Path, states: Path) -> None:
        self.folder, self.states = folder, states
        self.labels: list[str] = []
        self._real = {name: getattr(os, name) for name in self._CALLS}
        self._keeping = False

    def __enter__(self):
        self.states.mkdir()
        self._keep("before")
        for name, real in self._real.items():
            setattr(os, name, self._watched(name, real))
        return self

    def __exit__(self, *_error):
        for name, real in self._real.items():
            setattr(os, name, real)
        self._keep("after")

    def _watched(self, name, real):
        def call(first, *rest, **options):
            if self._keeping:
                return real(first, *rest, **options)
            label = f"{name} {os.readlink(f'/proc/self/fd/{first}') if name == 'fsync' else first}"
            if name == "fsync":
                self._unwritten(first, label)
            done = real(first, *rest, **options)
            self._keep(label)
            return done

        return call

    def _unwritten(self, descriptor, label):
        """A file before its fsync: what a crash may show of it."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir() or not path.is_relative_to(self.folder):
            return
        at = path.relative_to(self.folder)
        size = path.stat().st_size
        old = self.all()[-1] / at
        if old.is_file() and old.stat().st_size == size:
            return  # overwritten in place, within one sector: the old or the new
        for part in (0, size // 2):
            self._keep(f"{label}, {part} bytes")
            with (self.all()[-1] / at).open("r+b") as stream:
                stream.truncate(part)

    def _keep(self, label):
        self._keeping = True
        try:
            shutil.copytree(self.folder, self.states / f"{len(self.labels):04}")
        finally:
            self._keeping = False
        self.labels.append(label)

    def all(self) -> list[Path]:
        return sorted(self.states.iterdir())
