# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a container lab needs never reaches a real node."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Everything that becomes part of a node, or decides what does.
PLACES = ("configs", "playbooks", "plugins", "roles", "services", "site.yml")
LAB_ONLY = {
    "rootless containers without limits": r"pids_limit = 0",
    "the container manager of the lab": r"nspawn",
    "no system call filter": r"SYSTEMD_SECCOMP|seccomp\s*[=:]\s*\"?unconfined",
    "a writable /proc/sys": r"API_VFS_WRITABLE",
    "shared mount propagation": r"make-rshared|MountFlags\s*=\s*shared",
    "loosened devices": r"/dev/net/tun|DevicePolicy\s*=\s*auto|DeviceAllow\s*=.*\brwm\b|--device-cgroup-rule",
    "every Linux capability": r"--capability=all|--privileged|CapabilityBoundingSet\s*=\s*~\s*$",
    "the lab's own names": r"kos[-_]lab|KOS_LAB",
}


def files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *PLACES]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("what", LAB_ONLY)
def test_lab_setting_is_nowhere_else(what: str):
    pattern = re.compile(LAB_ONLY[what], re.MULTILINE)
    found = [str(path.relative_to(ROOT)) for path in files() if pattern.search(path.read_text(errors="replace"))]
    assert not found, f"{what} belongs to lab/ alone"


def test_the_places_are_looked_at():
    names = {path.relative_to(ROOT).parts[0] for path in files()}
    assert {"plugins", "roles", "services"} <= names


def test_the_core_does_not_import_the_lab():
    importing = re.compile(r"from\s+\.+lab\b|kind\.kos\.lab|from\s+\.+\s+import\s+.*\blab\b")
    plugins = [path for path in files() if path.suffix == ".py"]
    assert not [str(path) for path in plugins if importing.search(path.read_text())]
