# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How programs of the toolbox are started, and what they see."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from test_media_packages import KERNEL, MAWK

from kos_image import bootstrap, command
from kos_image.errors import HostError, ImageError
from kos_image.toolbox import Toolbox


def can_mount():
    """In namespaces of its own, which root may have and some machines refuse."""
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.fixture
def tree(tmp_path):
    """This machine's own programs, as a tree that has the folders of one."""
    found = tmp_path / "tree"
    for name in ("sys", "dev", "proc", "run", "tmp", "var/tmp", "build", "usr"):
        (found / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (found / name).symlink_to(f"usr/{name}")
    return found


@pytest.fixture
def toolbox(tree, monkeypatch, tmp_path):
    if not can_mount():
        pytest.skip("only root has mounts of its own here")
    enter = tmp_path / "enter.sh"
    enter.write_text(f'mount --rbind /usr "$1/usr"\nexec sh {Toolbox.run.__globals__["_ENTER"]} "$@"\n')
    monkeypatch.setitem(Toolbox.run.__globals__, "_ENTER", enter)
    return Toolbox(tree, 1767225600)


def test_folders_are_seen_below_build_and_the_environment_is_clean(toolbox, tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKED", "yes")
    out = tmp_path / "out with a space"
    out.mkdir()
    said = toolbox.run(["sh", "-c", "echo made >/build/out/file; env"], {"out": out}, {"OWN": "1"})
    assert (out / "file").read_text() == "made\n"
    assert {"SOURCE_DATE_EPOCH=1767225600", "OWN=1", "LC_ALL=C.UTF-8"} <= set(said.splitlines())
    assert "LEAKED" not in said
    assert (out / "file").stat().st_mode & 0o777 == 0o644


def test_its_mounts_and_processes_are_its_own(toolbox, tree):
    mounts = toolbox.run(["cat", "/proc/self/mounts"], {})
    assert f" {os.sep}build " in mounts
    assert "/build" not in command.run(["cat", "/proc/self/mounts"])
    assert toolbox.run(["sh", "-c", "echo $$"], {}) == "1\n"
    assert list((tree / "build").iterdir()) == []


def test_whoever_kills_the_build_kills_its_programs_too(toolbox):
    """The process alone, as the kernel does when memory is short; then a folder that is swept is nobody's any more."""
    seconds = f"8{os.getpid()}"
    builder = os.fork()
    if not builder:
        toolbox.run(["sleep", seconds], {})
    wait_until(lambda: sleeping(seconds))
    os.kill(builder, signal.SIGKILL)
    os.waitpid(builder, 0)
    wait_until(lambda: not sleeping(seconds))


def sleeping(seconds):
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it may have ended by now
            if path.read_bytes() == b"sleep\0%s\0" % seconds.encode():
                return True
    return False


def wait_until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_failed_is_named_with_its_last_words(toolbox):
    with pytest.raises(ImageError, match=r"sh failed \(3\): too bad"):
        toolbox.run(["sh", "-c", "echo too bad >&2; exit 3"], {})


def test_a_program_that_is_not_there_is_a_fault_of_the_machine():
    with pytest.raises(HostError, match="no program `no-such-program`"):
        command.run(["no-such-program"])


def test_a_tree_is_made_of_the_locked_packages_and_a_repository_of_files():
    made = bootstrap.arguments([MAWK, KERNEL], "arm64", "/a b", "/tree", ["--skip=x"])
    assert made[0] == "mmdebstrap"
    assert {"--architectures=arm64", "--include=mawk,linux", "--skip=x"} <= set(made)
    assert made[-3:] == ["", "/tree", "deb [trusted=yes] copy:/a%20b repository/"]
    assert not [word for word in made if "http" in word]
