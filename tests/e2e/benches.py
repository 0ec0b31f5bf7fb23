# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs in emulated machines: from a stick onto a blank disk, then from that disk, with SSH."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import accepting
import sshed
import yaml
from labnodes import wait_for

from ansible_collections.kind.kos.lab.machines import Disk

# Emulated on two cores that others use too.
INSTALLS, STARTS = 2400, 1200
SERIAL, HOSTNAME, USER = "kos-target-1", "bench", "kos"
# 64 MiB: the least that any medium takes; an emulated machine needs seconds for it, not minutes.
CHEAP = {"memory_kib": 65536, "iterations": 4, "threads": 1}
_CHUNK = 1 << 20


def unseen(*names):
    """Credentials by which services of a medium are not started (systemd-debug-generator(8)).

    Two emulated processors have enough to do without screens that nobody looks at, and a second reading of the stick.
    What they show is tested where somebody looks.
    """
    return {f"systemd.unit-dropin.{name}.service": "[Unit]\nConditionPathExists=/nonexistent\n" for name in names}


_QUIET = unseen("getty@tty1", "serial-getty@ttyS0", "kos-verify")


@dataclass(frozen=True)
class Bench:
    """A machine with a disk of its own. `folder` has its files; `canary` is its passphrase, and in none of them."""

    media: object
    builder: object
    stick: Path
    folder: Path
    canary: str

    @property
    def disk(self):
        """Its disk, as a file."""
        return self.folder / "target.raw"

    def fresh(self, gigabytes=12):
        """Give it a blank disk."""
        with self.disk.open("wb") as file:
            file.truncate(gigabytes << 30)

    def answers(self, **more):
        """The answers to an install onto that disk, which needs nobody and ends with the power off."""
        return {
            "version": 1,
            "hostname": HOSTNAME,
            "accept_shortfall": ["cpu", "memory", "disk", "network"],
            "storage": {"disk": {"serial": SERIAL}},
            "user": {"name": USER, "ssh_keys": [self.key()]},
            "confirm": {"wipe": [SERIAL]},
            "after": "power_off",
            **more,
            "encryption": {
                "passphrase": {"credential": "kos.passphrase"}, "argon2id": CHEAP, **more.get("encryption", {}),
            },
        }  # fmt: skip

    def labelled(self, answers):
        """A disk labelled KOS-ANSWERS with these answers."""
        work = self.folder / "answers"
        work.mkdir(exist_ok=True)
        (work / "answers.yaml").write_text(yaml.safe_dump(answers))
        image = work / "answers.img"
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(8 << 20)
        at = "/build/work"
        self.builder.tool(work, "mkfs.vfat", "-n", "KOS-ANSWERS", f"{at}/{image.name}")
        self.builder.tool(work, "mcopy", "-i", f"{at}/{image.name}", f"{at}/answers.yaml", "::answers.yaml")
        return image

    @contextlib.contextmanager
    def installing(self, answers, **how):
        """The stick starts in it, beside the blank disk and the answers, with no network card."""
        given = {"kos.passphrase": self.canary, **_QUIET, **how.pop("credentials", {})}
        own = {"state": self.folder / "machine", "disks": (Disk(self.disk, SERIAL),), "restart": False}
        with self.media.booted(
            self.stick, seed=self.labelled(answers), credentials=given, memory=2560, **{**own, **how}
        ) as machine:
            yield machine

    def install(self, answers=None, **how):
        """What the machine said while the stick installed it, with nobody there; it is off."""
        with self.installing(answers or self.answers(), **how) as machine:
            found = machine.wait_for(
                f"Installed: {HOSTNAME}", "FAILED: ", "kos-unattended.service: Failed", seconds=INSTALLS
            )
            assert found and found[0].startswith("Installed"), machine.said[-5000:]
            machine.running.process.wait(300)
            print(f"installed and off after {machine.seconds():.0f} s")
            return machine.said

    @contextlib.contextmanager
    def started(self, unlocked=True, **how):
        """It starts from its disk, now with a network card; the passphrase comes from firmware where it is to be."""
        port = sshed.free_port()
        given = {"cryptsetup.passphrase": self.canary} if unlocked else {}
        own = {"state": self.folder / "machine", "persist": True, "usb": False, "ssh": port, "memory": 2560}
        with self.media.booted(self.disk, credentials={**given, **how.pop("credentials", {})}, **own, **how) as machine:
            yield machine, Shell(self.folder, port)

    def holds(self, *words):
        """Which of these words lie on the disk in clear, anywhere."""
        found = set()
        for piece in _written(self.disk):
            found |= {word for word in words if word.encode() in piece}
        return found

    def key(self):
        private = self.folder / "id"
        if not private.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", private], check=True)
        return private.with_suffix(".pub").read_text().strip()


@dataclass(frozen=True)
class Shell:
    """SSH to the machine. Its host key is taken when it first answers; a test compares it with what was shown."""

    folder: Path
    port: int

    @property
    def options(self):
        """SSH's: one connection for all, as each new one costs an emulated machine seconds."""
        known, control = self.folder / f"known-{self.port}", self.folder / f"ssh-{self.port}"
        return [
            "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes",
            "-o", f"IdentityFile={self.folder / 'id'}", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=60",
            "-o", "ControlMaster=auto", "-o", "ControlPersist=600", "-o", f"ControlPath={control}",
        ]  # fmt: skip

    def run(self, command, check=True, timeout=300, given=None):
        """A command on the machine, with an open file as its input; what it printed."""
        line = ["ssh", "-q", *self.options, "-p", str(self.port), f"{USER}@127.0.0.1", command]
        done = subprocess.run(line, stdin=given, capture_output=True, text=True, timeout=timeout, check=False)
        if check:
            assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def hang_up(self):
        """End the connection: the machine at its other end is going to forget it."""
        line = ["ssh", "-q", *self.options, "-p", str(self.port), "-O", "exit", f"{USER}@127.0.0.1"]
        subprocess.run(line, capture_output=True, check=False)

    def wait(self, machine, seconds=STARTS):
        """Until it lets somebody in."""
        wait_for(lambda: machine.ended or self.run("true; echo in", check=False, timeout=120) == "in", seconds)
        assert not machine.ended, machine.said[-3000:]

    def healthy(self):
        """What `kai status` says when the node's first start is over."""
        self.run("until [ ! -e /var/lib/kos/pending ]; do sleep 3; done", False, 1800)
        said = self.run("sudo -i kai status", timeout=STARTS)
        assert f"{HOSTNAME} is healthy" in said, said
        return said

    def fingerprint(self):
        """Of the host key that the machine showed."""
        known = self.folder / f"known-{self.port}"
        done = subprocess.run(["ssh-keygen", "-l", "-f", known], capture_output=True, text=True, check=True)
        return done.stdout.split()[1]

    def inventory(self):
        """The machine as an inventory of Ansible's."""
        return accepting.reached(self.folder, HOSTNAME, self.port, self.options, USER)

    def accepted(self, *options):
        """Run the acceptance suite, the one of every door; what it said."""
        said = accepting.accept(self.inventory(), HOSTNAME, "usb", *options)
        accepting.keep(self.inventory(), HOSTNAME, "usb", "vm")
        return said


def _written(image):
    """What was ever written to a sparse image, piece by piece; each overlaps the one before it."""
    with image.open("rb") as file:
        size, at, before = image.stat().st_size, 0, b""
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            file.seek(at)
            piece = file.read(_CHUNK)
            yield before + piece
            before, at = piece[-256:], at + len(piece)
