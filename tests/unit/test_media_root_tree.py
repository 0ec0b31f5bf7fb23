# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root tree of media: from what it is made, and what must not be in it."""

from __future__ import annotations

import subprocess

import pytest
from test_media_packages import KERNEL, MAWK

from kos_image import packages, root_tree

SHADOW = "root:*:20000:0:99999:7:::\ndaemon:*:20000:0:99999:7:::\n"
LEFT = (
    "etc/apt/sources.list",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/passwd-",
    "etc/shadow-",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/status-old",
    "var/log/apt/history.log",
    "var/log/dpkg.log",
)


def clean(tree):
    script = root_tree.RECIPES / "clean-root.sh"
    return subprocess.run(["sh", str(script), str(tree)], capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path):
    for name in (*LEFT, "etc/ssh/sshd_config", "var/lib/dpkg/status"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "etc/shadow").write_text(SHADOW)
    return tmp_path


def test_what_tells_of_the_machine_that_made_it_goes(tree):
    done = clean(tree)
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in LEFT if (tree / name).exists()] == []
    assert (tree / "etc/machine-id").read_text() == ""
    assert (tree / "etc/ssh/sshd_config").exists()
    assert (tree / "var/lib/dpkg/status").exists()


@pytest.mark.parametrize("password", ["", "$6$salt$hash"])
def test_a_root_that_somebody_could_log_in_as_is_refused(tree, password):
    (tree / "etc/shadow").write_text(SHADOW.replace("root:*", f"root:{password}"))
    done = clean(tree)
    assert (done.returncode, done.stderr) == (1, "root has a password\n")


def test_it_is_made_of_the_locked_packages_and_what_nobody_asked_for_is_automatic(tmp_path, monkeypatch):
    seen = {}

    class Tools:
        def run(self, argv, folders, environ):
            seen.update(argv=argv, folders=folders, environ=environ)
            seen["index"] = (folders["repository"] / "Packages").read_text()
            seen["automatic"] = (folders["work"] / "automatic").read_text()
            (folders["root"] / "root.tar").write_bytes(b"")
            return ""

    monkeypatch.setattr(packages, "run", lambda argv: f"Package: {argv[-1].rpartition('/')[2]}\n")
    root_tree.make(Tools(), [MAWK, KERNEL], ["linux"], "arm64", tmp_path / "debs", tmp_path)
    assert seen["index"] == (
        f"Package: mawk_1.3.4-1_amd64.deb\nFilename: debs/mawk_1.3.4-1_amd64.deb\nSize: 9\nSHA256: {MAWK.sha256}\n\n"
        f"Package: linux_6_amd64.deb\nFilename: debs/linux_6_amd64.deb\nSize: 9\nSHA256: {KERNEL.sha256}\n"
    )
    assert seen["automatic"] == "mawk"
    assert seen["argv"][-3:] == ["", "/build/root/root.tar", "deb [trusted=yes] copy:/build repository/"]
    assert seen["environ"]["INITRD"] == "No"
    assert [path.name for path in tmp_path.iterdir()] == ["root.tar"]
