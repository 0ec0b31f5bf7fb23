# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A root that is not booted becomes a node by the playbook of every door; its first start, off the net, finishes it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from labnodes import ROOT, wait_for

from ansible_collections.kind.kos.lab import state
from ansible_collections.kind.kos.lab.identity import Lab as Names
from ansible_collections.kind.kos.plugins.module_utils.node import system
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.plugin_utils import own_node
from kos_install.actions import converge, own, target
from kos_install.actions.context import Context
from kos_install.answers import Answers
from kos_install.hardware.model import Machine
from kos_install.storage.actions import Converge, Plan

PROFILE, NAME = "development", "target"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP nobody"
STEP = Converge(id="converge")
DAMAGED = "Status: install reinstreq half-installed"


@pytest.fixture(scope="module")
def disk(lab, tmp_path_factory):
    """The disk of a node that is off, mounted as an installer's target is; with what a medium brings."""
    bundle = tmp_path_factory.mktemp("bundle") / "bundle.kos"
    lab.kai("bundle", "build", "--profile", PROFILE, "--arch", "amd64", "--output", str(bundle))
    lab.kai("lab", "up", NAME)
    lab.kai("lab", "kill", NAME)
    lab.kai("lab", "network", "cut")
    with mounted(lab, tmp_path_factory.mktemp("mounted")) as folder:
        root = Root(str(folder))
        target.lay(root, own.entries(context(folder).answers, PROFILE))
        (folder / "usr/share/kos/keys").mkdir(parents=True)
        (folder / "usr/share/kos/keys/maker.pub").write_text(lab.kai("trust", "key").stdout)
        (folder / "var/lib/kos-media").mkdir()
        shutil.copyfile(bundle, root.join(own_node.BUNDLE))
        own.enrol(root)
        yield folder
    lab.kai("lab", "network", "restore")
    lab.kai("lab", "down", NAME)


@contextlib.contextmanager
def mounted(lab, folder):
    """As lab/boot-node.sh mounts it."""
    names = Names(lab.environment["KOS_LAB_ID"], ROOT)
    own_disk, below = names.node_var(NAME), state.require(names).node(NAME).root
    layers = f"lowerdir={below},upperdir={own_disk}/upper,workdir={own_disk}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, folder], check=True)
    try:
        yield folder
    finally:
        if os.path.ismount(folder):
            subprocess.run(["umount", folder], check=True)


def context(folder):
    given = {"version": 1, "hostname": NAME, "profile": PROFILE, "user": {"ssh_keys": [KEY]}}
    return Context(Answers.model_validate(given), Machine(), Plan(actions=[STEP]), target=folder)


def settled(folder):
    """Whether no mount and no helper that forbids starts is left."""
    mounts = subprocess.run(["findmnt", "--list", "--noheadings", "--output", "TARGET"], capture_output=True, text=True)
    below = [line for line in mounts.stdout.split() if line.startswith(f"{folder}/")]
    return not below and not (folder / "usr/sbin/policy-rc.d").exists()


def test_a_plug_that_is_pulled_leaves_nothing_that_the_next_try_stumbles_over(disk):
    folders = ":".join(str(ROOT / name) for name in ("collections", "installer", "tests/e2e"))
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys, test_install_root as own; own.perform(sys.argv[1])", disk],
        env={**os.environ, "PYTHONPATH": folders},
    )
    wait_for(lambda: "unpacked" in system.package_states(Root(str(disk))).values(), 120)
    process.kill()
    process.wait()
    wait_for(lambda: settled(disk), 30)
    stop_inside_a_package(disk)
    assert not converge.stands(context(disk), STEP)


def stop_inside_a_package(folder):
    """What dpkg leaves of the package in whose unpacking it is stopped; where it was, is chance otherwise."""
    merging = ["chroot", folder, "dpkg", "--set-selections"]  # of nothing: dpkg merges what it journalled
    wait_for(lambda: subprocess.run(merging, input=b"", check=False).returncode == 0, 30)  # its locks go with it
    path = folder / "var/lib/dpkg/status"
    before = path.read_text()
    after = re.sub(r"^Status: install ok (unpacked|half-configured)$", DAMAGED, before, count=1, flags=re.MULTILINE)
    assert DAMAGED in after
    path.write_text(after)


def perform(folder):
    """What an installer does."""
    converge.perform(context(Path(folder)), STEP)


def test_the_next_try_makes_it_a_node_that_waits_for_its_first_start(disk):
    converge.perform(context(disk), STEP)
    assert converge.stands(context(disk), STEP) and settled(disk)
    assert not (disk / "var/tmp/kos-install").exists()
    assert not (disk / "var/lib/kos/secrets").exists(), "sealed by the machine itself, when it starts"
    began = time.monotonic()
    converge.perform(context(disk), STEP)
    assert converge.stands(context(disk), STEP)
    print(f"nothing to do, in {time.monotonic() - began:.1f} s")


def test_its_first_start_without_a_network_finishes_it(lab, disk):
    subprocess.run(["umount", disk], check=True)
    lab.kai("lab", "up", NAME)
    wait_for(lambda: lab.healthy(NAME), 120)
    status = lab.status(NAME)
    assert status["generation"]["state"] == "committed"
    assert lab.ssh(NAME, "systemctl --failed --plain --no-legend") == ""
    # Nor did one fail before its secrets were made, and nothing is left of what kept it from that.
    assert lab.ssh(NAME, "journalctl --boot --quiet --grep '^Failed to start kos-'", check=False) == ""
    assert lab.ssh(NAME, "ls -d /etc/systemd/system/*.d/kos-first-start.conf", check=False) == ""
    assert lab.ssh(NAME, "ls /var/lib/kos/pending 2>/dev/null", check=False) == ""
    assert lab.ssh(NAME, "python3 -I -B /var/lib/kos/current/node doctor") == "[]"
