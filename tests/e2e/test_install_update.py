# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An installed machine afterwards: renewed as a whole, back again, repaired by hand, begun anew.

One machine that a stick has installed, and its desk: `kai` of this checkout, over SSH.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import mediums
import pytest
from benches import HOSTNAME, Bench
from mediabuilds import Builder

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]

KAI = Path(sys.executable).with_name("kai")
REPOSITORY = "/srv/kos-test"
# `kai update` waits for starts that are emulated here.
PATIENCE = 3000


@pytest.fixture
def bench(tmp_path):
    """A machine that a stick has installed; it is off."""
    builder = Builder(tmp_path)
    stick = builder.stick(tmp_path)
    made = Bench(mediums.Media(f"after{os.getpid()}"), builder, stick, tmp_path, f"canary-{secrets.token_hex(12)}")
    made.fresh()
    made.install()
    yield made
    shutil.rmtree(tmp_path)


def package(folder, version):
    """A Debian package that says its version, and the lines of an index that offer it."""
    tree, deb = folder / f"probe-{version}", folder / f"kos-probe_{version}.deb"
    control = (
        f"Package: kos-probe\nVersion: {version}\nArchitecture: all\nMaintainer: kOS\nDescription: what a test renews\n"
    )
    for name, text in {"DEBIAN/control": control, "usr/share/kos-probe/version": f"{version}\n"}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, deb], check=True, capture_output=True)
    content = deb.read_bytes()
    return f"{control}Filename: ./{deb.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"


def offer(shell, folder):
    """Give the machine the first version, and a repository with the second."""
    package(folder, 1)
    (folder / "Packages").write_text(package(folder, 2))
    archive = folder / "repository.tar"
    names = ["kos-probe_1.deb", "kos-probe_2.deb", "Packages"]
    subprocess.run(["tar", "-C", folder, "-cf", archive, *names], check=True)
    with archive.open("rb") as stream:
        shell.run(f"sudo mkdir -p {REPOSITORY} && sudo tar -C {REPOSITORY} -x", given=stream)
    shell.run(f"echo 'deb [trusted=yes] file:{REPOSITORY} ./' | sudo tee /etc/apt/sources.list.d/kos-test.list")
    shell.run(f"sudo dpkg --install {REPOSITORY}/kos-probe_1.deb")


def update(shell, *words):
    """Run `kai update` at the desk; what it printed."""
    argv = [KAI, "update", "-i", shell.inventory(), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def system(shell):
    """Which system runs, the version in it, and what the node knows of its systems."""
    slot = shell.run(r"sed -n 's/.*kos\.slot=\([0-9]*\).*/\1/p' /proc/cmdline")
    version = shell.run("cat /usr/share/kos-probe/version", check=False)
    return int(slot), version, json.loads(shell.run("sudo kos-system status"))


def restart(machine, shell, command):
    """Run a command that restarts the machine."""
    machine.listen()
    shell.run(command, check=False)
    shell.hang_up()
    machine.wait("reboot: Restarting system")


def renewed_and_back(machine, shell, folder):
    """By `kai update` at the desk; what is not the system's stays as it is."""
    offer(shell, folder)
    assert system(shell)[:2] == (1, "1")
    said = update(shell)
    assert "1 package renewed" in said and "system 2 came up well and is kept" in said
    slot, version, known = system(shell)
    assert (slot, version, known["slots"]) == (2, "2", [1, 2])
    shell.healthy()
    assert "every package is up to date" in update(shell)
    print(f"renewed after {machine.seconds():.0f} s")

    update(shell, "--back")
    assert system(shell)[:2] == (1, "1")
    shell.healthy()
    print(f"back after {machine.seconds():.0f} s")


def repaired(machine, shell, canary):
    """By hand: what opens the disk opens a shell, and nothing else does."""
    restart(machine, shell, "sudo bootctl set-oneshot recovery-kos.conf && sudo systemctl reboot")
    machine.wait("What opens the disk opens a shell")
    # What is typed before it asks is thrown away.
    machine.answer("Enter passphrase for", "not the passphrase")
    machine.wait("No key available with this passphrase")
    machine.answer("Enter passphrase for", canary)
    machine.wait("exit restarts the machine")
    machine.send("findmnt --noheadings --output SOURCE / && systemctl is-active sshd\r")
    machine.wait(r"/dev/mapper/kos-root\[/@root\.1\]\s+inactive")
    machine.send("exit\r")
    shell.wait(machine)
    assert system(shell)[0] == 1
    print(f"repaired after {machine.seconds():.0f} s")


def begun_anew(machine, shell):
    """As the installer left it, but for what people have in their homes."""
    shell.run("echo mine | sudo tee /etc/motd; echo kept > ~/kept")
    before = system(shell)[2]["slots"]
    restart(machine, shell, f"sudo kos-system reset --confirm {HOSTNAME} && sudo systemctl reboot")
    shell.wait(machine)
    slot, version, _known = system(shell)
    assert (slot, version) == (max(before) + 1, "") and shell.run("cat ~/kept") == "kept"
    assert "mine" not in shell.run("cat /etc/motd")
    shell.healthy()
    print(f"begun anew after {machine.seconds():.0f} s")


def test_a_machine_is_renewed_goes_back_is_repaired_and_begins_anew(bench):
    """Complaints 19 and 20: a reset of a locked disk, and a way back from an update."""
    with bench.started() as (machine, shell):
        shell.wait(machine)
        shell.healthy()
        renewed_and_back(machine, shell, bench.folder)
        repaired(machine, shell, bench.canary)
        begun_anew(machine, shell)
