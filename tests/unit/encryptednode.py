# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node as folders, with a disk that can be opened, mounted and bound: its header is a real one, of cryptsetup.

What is mounted has the folder of the device in its place; a directory that is bound is a link, and what it covers is
kept aside. A reboot takes all of that away, as a kernel's would be.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

from ansible_collections.kind.kos.plugins.module_utils.node import files, gate, store, system, transaction
from ansible_collections.kind.kos.plugins.module_utils.node.encryption import (
    move,
    opening,
    proof,
    record,
    target,
    units,
)
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import luks

PASSPHRASE = "violet ladder anvil sparrow"
DATABASE, CACHE = "/var/lib/kos-postgresql", "/var/lib/kos-valkey"
MANIFEST = {
    "services": [
        {"name": "postgresql", "capabilities": ["database"]},
        {"name": "valkey", "capabilities": ["cache"]},
        {"name": "nftables", "capabilities": ["firewall"]},
    ],
    "units": [
        {"name": "kos-postgresql.service", "service": "postgresql", "tier": 1, "starts": "now"},
        {"name": "kos-valkey.service", "service": "valkey", "tier": 0, "starts": "now"},
        {"name": "kos-backup.timer", "service": "valkey", "tier": 0, "starts": "now"},
        {"name": "kos-firewall.service", "service": "nftables", "tier": 0, "starts": "now"},
        {"name": "kos-boot.service", "service": "status", "tier": 0, "starts": "boot"},
    ],
    "volumes": [
        {"path": DATABASE, "service": "postgresql", "user": "kos-postgresql", "unit": "kos-postgresql.service"},
        {"path": CACHE, "service": "valkey", "user": "kos-valkey", "unit": "kos-valkey.service"},
    ],
}
_DATA = {
    f"{DATABASE}/17/base/1": b"rows " * 2000,
    f"{DATABASE}/17/PG_VERSION": b"17\n",
    f"{CACHE}/dump.rdb": b"REDIS0011",
}
UNITS = (
    "kos-postgresql.service", "kos-valkey.service", "kos-backup.timer", "kos-firewall.service", "kos-boot.service"
)  # fmt: skip


class Node:
    """The node, and what happens to it."""

    def __init__(self, folder: Path, monkeypatch):
        self.root = Root(str(folder / "root"))
        self.root.booted = True
        self.disk, self.inner, self.covered = folder / "disk", folder / "inner", folder / "covered"
        self.boot, self.running, self.bound, self.loaded = 1, set(UNITS), [], {}
        self.manifest, self.holds, self.ran = json.loads(json.dumps(MANIFEST)), [], []
        self.during = lambda _argv: None
        with self.disk.open("wb") as stream:
            stream.truncate(24 << 20)
        self.write(_DATA)
        files.write(self.root.join("/proc/self/mountinfo"), b"")
        files.write(self.root.join("/proc/swaps"), b"Filename Type\n")
        patch = monkeypatch.setattr
        patch(system, "run", self._run)
        patch(os, "sync", lambda: None)
        patch(store, "current", lambda _root: SimpleNamespace(manifest=self.manifest, path="/nowhere", number=1))
        patch(luks, "affordable", lambda _memory, _processors: luks.Cost(32))
        patch(luks, "HEADER", 0)
        patch(target, "look", self._look)
        patch(gate, "wait_healthy", self._health)
        patch(transaction, "settle", lambda _root: False)
        patch(proof, "of", self._proof)
        patch(move, "_beneath", self._beneath)
        for module in (move, opening):
            patch(module, "boot_id", lambda: f"boot {self.boot}")
        patch(record.Record, "device", property(lambda _self: str(self.disk)))
        patch(target, "_LEAST", 0)
        self.sick: list[str] = []

    def write(self, data):
        """As services do: wherever their data are now."""
        for path, content in data.items():
            place = Path(self.root.join(path))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    def read(self):
        """All data, as services have them now."""
        found = {}
        for top in (row["path"] for row in self.manifest["volumes"]):
            real = Path(self.root.join(top))
            for place, _folders, names in os.walk(real):
                for name in names:
                    path = Path(place, name)
                    found[f"{top}/{path.relative_to(real)}"] = path.read_bytes()
        return found

    def apply(self, passphrase=PASSPHRASE, **wish):
        return move.apply(self.root, move.Wish(**{"target": "/dev/spare", **wish}), passphrase)

    def reboot(self):
        """Everything that a kernel had is gone; what may start, starts."""
        for path in list(self.bound):
            self._unbind(path)
        if self._volume().exists() and self._is_mounted():
            self._umount_volume()
        Path(self.root.join(record.DEVICE)).unlink(missing_ok=True)
        shutil.rmtree(self.root.join("/run"), ignore_errors=True)
        self.boot += 1
        self._reload()
        self.running = {name for name in UNITS if self._may_start(name)}

    def mounts(self):
        """What is mounted, as the kernel lists it."""
        places = [*([record.VOLUME] if self._is_mounted() else []), *self.bound]
        rows = "".join(f"1 1 0:1 / {place} rw - ext4 x rw\n" for place in places)
        Path(self.root.join("/proc/self/mountinfo")).write_text(rows)

    def _volume(self):
        return Path(self.root.join(record.VOLUME))

    def _is_mounted(self):
        return not self.inner.exists() and self._volume().joinpath("lost+found").exists()

    def _mount_volume(self):
        if not self._is_mounted():
            assert Path(self.root.join(record.DEVICE)).exists(), "nothing is open that could be mounted"
            self._volume().rmdir()
            self.inner.rename(self._volume())
        self.mounts()

    def _umount_volume(self):
        assert not self.bound, "it is busy"
        self._volume().rename(self.inner)
        self._volume().mkdir()
        self.mounts()

    def _bind(self, path, inside):
        if path in self.bound:
            return
        assert self._is_mounted(), "it is bound before its volume is mounted"
        real, aside = Path(self.root.join(path)), self.covered / path[1:]
        aside.parent.mkdir(parents=True, exist_ok=True)
        real.rename(aside)
        # As both see it: who stands outside of the root, and the node.
        real.symlink_to(os.path.relpath(self.root.join(inside), real.parent))
        self.bound.append(path)
        self.mounts()

    def _unbind(self, path):
        Path(self.root.join(path)).unlink()
        (self.covered / path[1:]).rename(self.root.join(path))
        self.bound.remove(path)
        self.mounts()

    def _beneath(self, _root, path):
        return contextlib.nullcontext(str(self.covered / path[1:]))

    def _reload(self):
        """As the generator does it."""
        folder = Path(self.root.join(record.UNITS))
        self.loaded = {}
        if folder.is_dir():
            for path in folder.rglob("*"):
                if path.is_file():
                    parser = configparser.ConfigParser(strict=False)
                    parser.optionxform = str
                    parser.read_string(path.read_text())
                    self.loaded[str(path.relative_to(folder))] = parser

    def _may_start(self, name):
        guard = self.loaded.get(f"{name}.d/kos-encryption.conf")
        return guard is None or (self._is_mounted() and guard["Unit"]["ConditionPathIsMountPoint"] == record.VOLUME)

    def _systemctl(self, argv, _stdin):
        verb = next(word for word in argv[1:] if not word.startswith("-"))
        names = argv[argv.index("--") + 1 :] if "--" in argv else []
        if verb == "daemon-reload":
            self._reload()
        if verb == "show":
            return "\n\n".join(
                f"Id={name}\nType=simple\nActiveState={'active' if name in self.running else 'inactive'}"
                for name in names
            )
        for name in names:
            if name.endswith(".mount"):
                self._mount_unit(verb, name)
            elif verb == "stop":
                self.running.discard(name)
            elif verb == "start" and self._may_start(name):
                waits = name == "kos-boot.service" and "--no-block" not in argv
                assert not waits, "it waits for the lock of the run that waits for it"
                self.running.add(name)
        return ""

    def _mount_unit(self, verb, name):
        if name == units.mount_of(record.VOLUME):
            self._mount_volume() if verb == "start" else self._umount_volume()
            return
        path = next(row["path"] for row in self.manifest["volumes"] if units.mount_of(row["path"]) == name)
        if verb == "start":
            self._bind(path, self.loaded[name]["Mount"]["What"])
        elif path in self.bound:
            self._unbind(path)

    def _run(self, argv, stdin=None, check=True, timeout=None, environment=None):
        self.ran.append([*argv, *(["<", stdin.decode()] if stdin else [])])
        self.during(argv)
        argv = [str(self.disk) if word == "/dev/spare" else word for word in argv]
        done = getattr(self, f"_{argv[0].partition('.')[0]}", lambda _argv, _stdin: "")(argv, stdin)
        code, said = done if isinstance(done, tuple) else (0, done or "")
        if check and code:
            raise system.CommandFailed(f"{argv[0]} failed ({code})")
        return SimpleNamespace(stdout=said.encode(), stderr=b"", returncode=code)

    def _cryptsetup(self, argv, stdin):
        opened = Path(self.root.join(record.DEVICE))
        if argv[1] == "close":
            assert not self._is_mounted(), "it is busy"
            opened.unlink()
            return ""
        opening_it = argv[1] == "open" and "--test-passphrase" not in argv
        if opening_it:
            argv = [*argv[:2], "--test-passphrase", *[word for word in argv[2:-1] if word != "--allow-discards"]]
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
        if opening_it and done.returncode == 0:
            files.write(str(opened), b"")
        return done.returncode, done.stdout.decode()

    def _mkfs(self, _argv, _stdin):
        assert not self._is_mounted()
        shutil.rmtree(self.inner, ignore_errors=True)
        (self.inner / "lost+found").mkdir(parents=True)

    def _mount(self, _argv, _stdin):
        self._mount_volume()

    def _umount(self, argv, _stdin):
        self._umount_volume() if argv[1] == record.VOLUME else self._unbind(argv[1])

    def _rsync(self, argv, _stdin):
        """By size and time, as rsync does; what it would do is all that a dry run says."""
        source, here, dry = Path(argv[-2]), Path(argv[-1]), "--dry-run" in argv
        wanted = {path.relative_to(source): path for path in source.rglob("*")}
        said = []
        for path in sorted(here.rglob("*"), reverse=True):
            if path.relative_to(here) not in wanted:
                said.append(f"*deleting {path}")
                if not dry:
                    path.rmdir() if path.is_dir() else path.unlink()
        for name, path in sorted(wanted.items()):
            copy = here / name
            if path.is_dir():
                copy.mkdir(exist_ok=True)
            elif not copy.exists() or _known(copy) != _known(path):
                said.append(f">f {name}")
                if not dry:
                    shutil.copy2(path, copy)
        moved = sum((source / row[3:]).stat().st_size for row in said if row.startswith(">f"))
        return "\n".join(said) if dry else f"Total transferred file size: {moved} bytes\n"

    def _look(self, path):
        return target.Target(path, "disk", self.disk.stat().st_size, "serial 1", holds=self.holds)

    def _health(self, services, **_how):
        return [
            gate.Health(row["name"], row["name"] not in self.sick and self._runs(row["name"]), "") for row in services
        ]

    def _runs(self, service):
        owned = {row["name"] for row in self.manifest["units"] if row["service"] == service}
        return {name for name in owned if name.endswith(".service")} <= self.running

    def _proof(self, root, _record):
        """What the kernel would say: each directory that is moved is bound, and its volume mounted."""
        good = self._is_mounted() and set(record.moved(root)) <= set(self.bound)
        return [proof.Finding("the data lie in the volume", good)]


def _known(path):
    status = path.stat()
    return status.st_size, status.st_mtime_ns
