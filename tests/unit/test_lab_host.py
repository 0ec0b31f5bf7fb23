# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine's facts mean for the lab."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.kind.kos.lab import cgroup, host, privilege
from ansible_collections.kind.kos.lab.errors import HostError
from ansible_collections.kind.kos.lab.host import Fact, Survey, VmSurvey
from ansible_collections.kind.kos.plugins.plugin_utils.apt import AptConfiguration

APT = AptConfiguration("http://mirror.example/debian", None, ())
GOOD = Survey(
    root=True,
    debian="13",
    machine="x86_64",
    python=(3, 13),
    kernel=(6, 12),
    missing=(),
    cgroup2="/sys/fs/cgroup",
    hybrid=False,
    overlay=True,
    tun=True,
    disk="ext2/ext3",
    free_mib=50_000,
    memory_mib=8_000,
    systemd=True,
    apt=APT,
    apt_fault="",
    roots=(),
    vm=VmSurvey("", "", None, False),
)


def fact(name: str, **seen: object) -> Fact:
    return next(fact for fact in host.facts(dataclasses.replace(GOOD, **seen)) if fact.name == name)


def test_good_machine_is_good():
    assert host.require(GOOD) == APT


def test_poor_machine_is_good_enough():
    poor = dataclasses.replace(GOOD, debian="12", hybrid=True, cgroup2="/sys/fs/cgroup/unified", systemd=False)
    assert host.require(poor) == APT
    assert "not enforced" in fact("control groups", hybrid=True).means


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("system", {"debian": "Ubuntu 24.04.1 LTS"}),
        ("system", {"debian": "11"}),
        ("architecture", {"machine": "riscv64"}),
        ("python", {"python": (3, 10)}),
        ("kernel", {"kernel": (5, 10)}),
        ("control groups", {"cgroup2": None}),
        ("overlay", {"overlay": False}),
        ("/dev/net/tun", {"tun": False}),
        ("disk", {"disk": "overlayfs"}),
        ("free space", {"free_mib": 100}),
        ("packages", {"missing": ("slirp4netns",)}),
        ("apt mirror", {"apt": None, "apt_fault": "set KOS_APT_MIRROR"}),
    ],
)
def test_what_is_in_the_way_is_refused_with_its_fix(name: str, seen: dict):
    found = fact(name, **seen)
    assert found.ok is False
    assert found.fix
    with pytest.raises(HostError) as refused:
        host.require(dataclasses.replace(GOOD, **seen))
    assert found.fix in str(refused.value)
    assert refused.value.exit_code == 4


def test_all_faults_are_said_at_once():
    with pytest.raises(HostError) as refused:
        host.require(dataclasses.replace(GOOD, missing=("nftables", "mmdebstrap"), tun=False))
    assert "apt-get install nftables mmdebstrap" in str(refused.value)
    assert "/dev/net/tun" in str(refused.value)


def test_fact_without_a_fault_has_no_fix():
    assert not [found.name for found in host.facts(GOOD) if found.ok is not False and found.fix]


def test_this_machine_can_be_surveyed_by_anybody():
    assert host.facts(host.survey())


@pytest.mark.parametrize(
    ("os_release", "expected"),
    [
        ('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', "12"),
        ('PRETTY_NAME="Debian GNU/Linux forky/sid"\nID=debian\n', "testing or unstable"),
        ('PRETTY_NAME="Ubuntu 24.04.1 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', "Ubuntu 24.04.1 LTS"),
        ("", "unknown"),
    ],
)
def test_debian_release(os_release: str, expected: str):
    assert host.debian_release(os_release) == expected


@pytest.mark.parametrize(("release", "expected"), [("6.12.48+deb13-amd64", (6, 12)), ("strange", (0, 0))])
def test_kernel_version(release: str, expected: tuple[int, int]):
    assert host.kernel_version(release) == expected


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", Path("/sys/fs/cgroup")),
        (
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            Path("/sys/fs/cgroup/unified"),
        ),
        ("cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n", None),
    ],
)
def test_where_control_groups_are(mounts: str, expected: Path | None):
    assert cgroup.mount_point(mounts) == expected


def test_packages_are_printed_for_the_setup():
    command = [sys.executable, "-m", "ansible_collections.kind.kos.lab.host"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "collections")}
    printed = subprocess.run([*command, "--packages"], capture_output=True, text=True, check=True, env=environ).stdout
    assert printed.splitlines() == sorted(host.PACKAGES)
    assert subprocess.run(command, capture_output=True, check=False, env=environ).returncode == 2


class Replaced(Exception):
    """Stands for a process that became another."""


@pytest.fixture
def as_user(monkeypatch) -> list[list[str]]:
    became: list[list[str]] = []

    def execv(_: str, argv: list[str]) -> None:
        became.append(argv)
        raise Replaced

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "execv", execv)
    return became


def test_user_becomes_root_by_sudo_and_is_told_why(as_user, monkeypatch, capsys):
    monkeypatch.setattr(privilege.shutil, "which", lambda _: "/usr/bin/sudo")
    monkeypatch.setattr(sys, "orig_argv", ["python3", "/venv/bin/kai", "lab", "up", "node1"])
    with pytest.raises(Replaced):
        privilege.become_root()
    assert as_user[0][2:] == [sys.executable, "/venv/bin/kai", "lab", "up", "node1"]
    assert "KOS_LAB_ID" in as_user[0][1]
    assert "only root may" in capsys.readouterr().err


def test_user_without_sudo_is_told_why(as_user, monkeypatch):
    monkeypatch.setattr(privilege.shutil, "which", lambda _: None)
    with pytest.raises(HostError, match="only root may"):
        privilege.become_root()
    assert not as_user
