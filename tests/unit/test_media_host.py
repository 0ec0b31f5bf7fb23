# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that builds: what is in the way of media, and the way out of each."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kos_image import host
from kos_image.errors import HostError, ImageError

GOOD = host.Survey("13", "x86_64", (), root=True, namespace="", ids=4294967295, free_mib=9000)
CACHE = Path("/cache")


@pytest.mark.parametrize(
    "seen", [GOOD, replace(GOOD, debian="12"), replace(GOOD, machine="aarch64"), replace(GOOD, root=False)]
)
def test_a_good_machine_has_nothing_in_the_way(seen):
    assert list(host.faults(seen, CACHE)) == []


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"debian": "11"}, "this is Debian 11: media are made on Debian 12 and 13"),
        ({"debian": "Ubuntu 24.04 LTS"}, "this is Ubuntu 24.04 LTS: media are made"),
        ({"machine": "riscv64"}, "amd64 and arm64 machines"),
        ({"missing": ("mmdebstrap", "uidmap")}, "apt-get install mmdebstrap uidmap"),
        (
            {"root": False, "namespace": "no line"},
            "(no line): run this as root, or as root `apt-get install uidmap` and `usermod --add-subuids",
        ),
        ({"ids": 1}, "this root may use 1 user ids"),
        ({"free_mib": 100}, "/cache has 100 MiB, and a build wants 4096: free some, or set KOS_MEDIA_CACHE"),
    ],
)
def test_what_is_in_the_way_is_said_with_the_way_out(seen, said):
    (fault,) = host.faults(replace(GOOD, **seen), CACHE)
    assert said in fault


def test_all_that_is_in_the_way_is_said_at_once(monkeypatch):
    monkeypatch.setattr(host, "survey", lambda cache: replace(GOOD, debian="11", free_mib=1))
    with pytest.raises(HostError, match=r"(?s)media cannot be made.*Debian 11.*\n.*free some") as raised:
        host.require(CACHE)
    assert raised.value.exit == 4


def test_the_system_is_named_as_it_names_itself():
    assert host.debian_release({"ID": "debian", "VERSION_ID": "13"}) == "13"
    assert host.debian_release({"ID": "debian"}) == "testing or unstable"
    assert host.debian_release({"ID": "ubuntu", "PRETTY_NAME": "Ubuntu 24.04 LTS"}) == "Ubuntu 24.04 LTS"


def test_the_ids_of_a_namespace_are_counted():
    assert host.mapped_ids("         0       1001          1\n         1     100000      65535\n") == 65536
    assert host.mapped_ids("         0          0 4294967295\n") == 4294967295


def test_missing_programs_are_seen(monkeypatch):
    monkeypatch.setattr(host, "PACKAGES", {"here": "sh", "gone": "no-such-program", "file": "/no/such/file"})
    assert host.missing_packages() == ("gone", "file")


def test_its_packages_are_known_before_any_library_is_installed():
    repository = Path(__file__).parents[2]
    environ = {"PYTHONPATH": f"{repository}/collections:{repository}/image-builder", "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-S", "-m", "kos_image.host", "--packages"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.split() == list(host.PACKAGES)


def test_a_user_runs_the_same_command_again_as_the_root_of_a_namespace(monkeypatch):
    started = []
    monkeypatch.setattr(host.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(host.os, "execv", lambda program, argv: started.append((program, argv)))
    monkeypatch.setattr(host, "_refusal", lambda: "")
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "kos_image.main", "build"])
    host.enter()
    ((program, argv),) = started
    assert program.endswith("/unshare")
    assert argv == [*host._NAMESPACE, sys.executable, "-m", "kos_image.main", "build"]
    monkeypatch.setattr(host.os, "geteuid", lambda: 0)
    host.enter()
    assert len(started) == 1


def test_a_user_who_gets_no_namespace_is_told_so_before_anything_is_run(monkeypatch):
    monkeypatch.setattr(host.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(host, "_NAMESPACE", ("sh", "-c", "echo no line matching >&2; exit 1"))
    with pytest.raises(HostError, match=r"gets no user namespace \(no line matching\): run this as root"):
        host.enter()


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The folders of binfmt, of a kernel that believes what is written to `register`."""
    monkeypatch.setattr(host, "_BINFMT", tmp_path / "binfmt_misc")
    monkeypatch.setattr(host, "_REGISTRATIONS", tmp_path / "binfmt.d")
    monkeypatch.setattr(host, "survey", lambda cache: GOOD)
    monkeypatch.setattr(host, "architecture", lambda: "amd64")
    for name in ("binfmt_misc", "binfmt.d"):
        (tmp_path / name).mkdir()
    (tmp_path / "binfmt_misc/register").write_text("")
    return tmp_path


def test_an_emulator_that_trees_need_no_copy_of_is_taken_as_it_is(kernel):
    (kernel / "binfmt_misc/qemu-aarch64").write_text("enabled\ninterpreter /usr/bin/qemu\nflags: POF\n")
    host.require(CACHE, "arm64")
    assert (kernel / "binfmt_misc/register").read_text() == ""


def test_the_own_architecture_needs_no_emulator(kernel):
    host.require(CACHE, "amd64")


@pytest.mark.parametrize("said", ["disabled\nflags: F\n", "enabled\ninterpreter /q\nflags: \n"])
def test_no_other_registration_will_do(kernel, said):
    (kernel / "binfmt_misc/qemu-aarch64").write_text(said)
    with pytest.raises(HostError, match="apt-get install qemu-user-static"):
        host.require(CACHE, "arm64")


def test_the_emulator_of_debians_package_is_registered_and_proved(kernel):
    (kernel / "binfmt.d/qemu-aarch64.conf").write_text(":qemu-aarch64:M:...")
    with pytest.raises(ImageError, match="does not obey"):
        host.require(CACHE, "arm64")
    assert (kernel / "binfmt_misc/register").read_text() == ":qemu-aarch64:M:..."


def test_who_may_not_register_is_told_what_root_does(kernel, monkeypatch):
    (kernel / "binfmt.d/qemu-aarch64.conf").write_text(":qemu-aarch64:M:...")
    (kernel / "binfmt_misc/register").unlink()
    refused = host.subprocess.CalledProcessError(32, "mount")
    monkeypatch.setattr(host.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(refused))
    with pytest.raises(HostError, match="systemctl restart systemd-binfmt"):
        host.require(CACHE, "arm64")


def test_little_memory_moves_trees_to_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "MEMORY_MIB", 0)
    assert host.scratch(tmp_path) is None
    monkeypatch.setattr(host, "MEMORY_MIB", 1 << 40)
    assert host.scratch(tmp_path) == tmp_path / "stages"
    assert (tmp_path / "stages").is_dir()
