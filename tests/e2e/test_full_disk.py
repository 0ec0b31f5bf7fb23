# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that is too small is refused with figures; one that fills up in the middle loses nothing."""

from __future__ import annotations

import os
import re
import subprocess

import crashtable
import pytest
from breakpoints import Breakpoint
from comparison import assert_same, differences, observe
from labnodes import INVENTORY

from ansible_collections.kind.kos.lab import cgroup, nspawn
from ansible_collections.kind.kos.lab.identity import identify

NODE = "crash-small"
OLD = "services: {cache: redis, vector_db: null}\n"
NEW = "services: {cache: redis, vector_db: null, monitoring: [node_exporter]}\nnetworking: {ports: {frontend: 8443}}\n"
MB = 10**6


class Small:
    """A node whose disk is a bounded one in memory, and the file that takes its space away."""

    def __init__(self, lab, folder):
        self.lab, self.identity = lab, identify(lab.environment)
        self.layers = {}
        for name, text in (("old", OLD), ("new", NEW)):
            path = folder / f"{name}.yaml"
            path.write_text(text)
            self.layers[name] = ("--profile", "development", "--site", str(path))
        # Opened once: who fills the disk while the node is held must open nothing in it.
        leader = nspawn.leader(self.identity, NODE)
        self.ballast = os.open(f"/proc/{leader}/root/var/ballast", os.O_RDWR | os.O_CREAT, 0o600)

    def free(self):
        state = os.statvfs(self.ballast)
        return state.f_bavail * state.f_frsize

    def fill(self, leave=0):
        """Take all but `leave` bytes of the disk."""
        size = os.fstat(self.ballast).st_size
        os.posix_fallocate(self.ballast, size, max(self.free() - leave, 4096))

    def empty(self):
        os.ftruncate(self.ballast, 0)

    def limit_files(self, leave):
        """Bound the disk's table of files, `leave` above what it holds; None takes the bound away."""
        state = os.statvfs(self.ballast)
        bound = state.f_files - state.f_ffree + leave if leave is not None else 10**6
        keeper = cgroup.path(f"{self.identity.node_cgroup(NODE)}/boot/cgroup.procs").read_text().split()[0]
        disk = str(self.identity.node_var(NODE))
        subprocess.run(
            ["nsenter", f"--target={keeper}", "--mount", "mount", "-o", f"remount,nr_inodes={bound}", disk], check=True
        )

    def deploy(self, layer, check=True):
        return self.lab.kai("deploy", "-i", INVENTORY, "--limit", NODE, *self.layers[layer], check=check)

    def stopped_at(self, word, stop):
        return Breakpoint(self.identity, NODE, word, stop=lambda _group: stop())

    def refused(self, layer):
        """A deploy that must be refused before anything changes; what it said."""
        before = observe(self.lab, NODE)
        done = self.deploy(layer, check=False)
        assert done.returncode == 4, done.stderr
        # A node has its lock and its identity from the moment on when it is first spoken to.
        changes = differences(before, observe(self.lab, NODE))
        assert [row for row in changes if not re.search(r"/var/lib/kos/(identity|lock)", row)] == []
        return " ".join(done.stderr.split())


def changed(small, before):
    """What is not as `before`. Users may stay behind: an id that was given out once is better not given to others."""
    found = differences(before, observe(small.lab, NODE))
    return [row for row in found if not row.startswith(("users:", "groups:"))]


@pytest.fixture(scope="module")
def small(lab, tmp_path_factory):
    lab.kai("lab", "up", NODE, "--memory-backed", "700M")
    made = Small(lab, tmp_path_factory.mktemp("layers"))
    yield made
    os.close(made.ballast)
    lab.kai("lab", "down", NODE)


@pytest.mark.long
def test_too_little_space_is_refused_with_the_figures_and_changes_nothing(small):
    small.lab.ssh(NODE, "apt-get -qq update")
    small.fill(leave=40 * MB)
    try:
        said = small.refused("old")
        assert re.search(
            r"no room on the disk of /\S+: (\d+) MB are needed \(.*34 MB for the change itself, .* MB of downloads,"
            r" .* MB of installed packages\), (39|40) MB are free: free \d+ MB more, then run again\.",
            said,
        ), said
        done = small.lab.deploy(NODE, "--check", *small.layers["old"], check=False)
        assert done.returncode == 4, done.stderr
    finally:
        small.empty()


@pytest.mark.long
def test_a_disk_that_fills_up_while_packages_are_unpacked_is_gone_back_from(small):
    with crashtable.row("full disk, first deploy", "packages") as line:
        with small.stopped_at("packages", small.fill) as point:
            done = small.deploy("old", check=False)
        left = small.lab.ssh(NODE, "dpkg --audit; ls /var/lib/kos/transaction /etc/kos 2>/dev/null", check=False)
        small.empty()
        assert point.hit and done.returncode == 5, done.stderr
        assert left == ""
        small.deploy("old")
        small.expected = observe(small.lab, NODE)
        assert_same(small.lab, NODE, small.expected, *small.layers["old"])
        line["by"] = "itself: went back; then a run"


@pytest.mark.long
@pytest.mark.parametrize("word", crashtable.sample(("prepared", "unit", "armed", "switched"), 1, "full disk"))
def test_a_disk_that_fills_up_in_a_change_is_gone_back_from(small, word):
    with crashtable.row("full disk, change", word) as line:
        with small.stopped_at(word, small.fill) as point:
            done = small.deploy("new", check=False)
        found = changed(small, small.expected)
        small.empty()
        assert point.hit and done.returncode == 5, done.stderr
        assert "no space" in done.stderr.lower() and "everything was taken back" in done.stderr
        assert found == []
        assert small.lab.healthy(NODE)
        line["by"] = "itself: went back"


@pytest.mark.long
def test_too_few_files_left_is_refused_and_running_out_of_them_is_gone_back_from(small):
    with crashtable.row("no inodes left, change", "unit") as line:
        small.limit_files(20)
        try:
            said = small.refused("new")
            small.limit_files(None)
            with small.stopped_at("unit", lambda: small.limit_files(0)) as point:
                done = small.deploy("new", check=False)
        finally:
            small.limit_files(None)
        assert re.search(r" \d+ more files are needed \(inodes\), (1?\d|20) are free: delete files", said), said
        assert point.hit and done.returncode == 5, done.stderr
        assert changed(small, small.expected) == []
        line["by"] = "itself: went back"


@pytest.mark.long
def test_with_space_again_the_same_run_converges(small):
    small.deploy("new")
    assert_same(small.lab, NODE, observe(small.lab, NODE), *small.layers["new"])
