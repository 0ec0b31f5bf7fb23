# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sshd is asked about its new files before they are in place; here it is a stand-in."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import files, login, system
from ansible_collections.kind.kos.plugins.module_utils.node.changes import Change, Wanted
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.login import LoginRefused

OURS = "/etc/ssh/sshd_config.d/01-kos.conf"
OPEN = "passwordauthentication yes\nkbdinteractiveauthentication no\n"
CLOSED = "passwordauthentication no\nkbdinteractiveauthentication no\nauthorizedkeysfile .ssh/authorized_keys\n"


@pytest.fixture
def root(tmp_path):
    for name, text in {
        "etc/ssh/sshd_config": "# x\nInclude /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n",
        "etc/ssh/sshd_config.d/50-site.conf": "Port 2222\n",
        "etc/ssh/sshd_config.d/60-leaving.conf": "X11Forwarding no\n",
        "usr/sbin/sshd": "",
    }.items():
        files.write(str(tmp_path / name), text.encode())
    return Root(str(tmp_path))


def comparison(differs="missing", path=OURS):
    entry = Wanted({"path": path, "service": "hardening"}, b"MaxSessions 2\n", "", differs, False)
    leaving = Change("file", "/etc/ssh/sshd_config.d/60-leaving.conf", "remove", "hardening")
    return SimpleNamespace(wanted=[entry], changes=[leaving])


@pytest.fixture
def sshd(monkeypatch):
    """What sshd was shown, and what it says."""
    seen = SimpleNamespace(files={}, refuses="", effective=OPEN, asked=0)

    def run(argv, **_options):
        seen.asked += 1
        room = os.path.dirname(argv[-1])
        seen.files = {path.name: path.read_text().replace(room, "ROOM") for path in Path(room).iterdir()}
        if argv[1] == "-T":
            return subprocess.CompletedProcess(argv, 0, seen.effective.encode(), b"")
        said = seen.refuses.replace("ROOM", room).encode()
        return subprocess.CompletedProcess(argv, 255 if said else 0, b"", said)

    monkeypatch.setattr(system, "run", run)
    monkeypatch.setattr(os, "makedirs", lambda *_args, **_options: None)
    return seen


def user(home, uid=1000, shell="/bin/bash"):
    return pwd.struct_passwd(("kim", "x", uid, uid, "", str(home), shell))


def test_sshd_sees_what_it_would_read_with_the_change(root, sshd):
    login.check(root, comparison())
    assert sshd.files == {
        "sshd_config": "# x\nInclude ROOM/*.conf\nUsePAM yes\n", "01-kos.conf": "MaxSessions 2\n",
        "50-site.conf": "Port 2222\n",
    }  # fmt: skip


def test_a_refusal_is_a_sentence_with_the_names_that_a_person_knows(root, sshd):
    sshd.refuses = "ROOM/50-site.conf: line 1: Bad configuration option: Foo\nROOM/sshd_config: terminating\n"
    with pytest.raises(LoginRefused, match="sshd refuses the configuration that this would make") as caught:
        login.check(root, comparison())
    assert "/etc/ssh/sshd_config.d/50-site.conf: line 1: Bad configuration option: Foo" in str(caught.value)
    assert "/etc/ssh/sshd_config: terminating" in str(caught.value) and "kos-sshd-" not in str(caught.value)


@pytest.mark.parametrize("change", [{"differs": ""}, {"path": "/etc/kos/x.conf"}])
def test_where_nothing_of_it_changes_it_is_not_asked(root, sshd, change):
    login.check(root, comparison(**change))
    assert not sshd.asked


def test_a_machine_without_sshd_is_not_asked(root, sshd):
    files.remove(root.join("/usr/sbin/sshd"))
    login.check(root, comparison())
    assert not sshd.asked


def test_a_configuration_that_would_not_read_ours_is_refused(root, sshd):
    files.write(root.join("/etc/ssh/sshd_config"), b"# Include /etc/ssh/sshd_config.d/*.conf\n")
    with pytest.raises(LoginRefused, match="add it as the first line"):
        login.check(root, comparison())


@pytest.mark.parametrize(
    ("effective", "entry", "key", "let"),
    [
        (OPEN, {}, "", True),
        (CLOSED, {}, "ssh-ed25519 AAAA kim\n", True),
        (CLOSED, {}, "# ssh-ed25519 AAAA\n\n", False),
        (CLOSED, {"shell": "/usr/sbin/nologin"}, "ssh-ed25519 AAAA kim\n", False),
        (CLOSED, {"uid": 0}, "ssh-ed25519 AAAA kim\n", True),
        (f"{CLOSED}permitrootlogin no\n", {"uid": 0}, "ssh-ed25519 AAAA kim\n", False),
        (f"{CLOSED}authorizedkeyscommand /usr/bin/sss\n", {}, "", True),
        (f"{CLOSED}trustedusercakeys /etc/ssh/ca.pub\n", {}, "", True),
    ],
)
def test_somebody_keeps_a_way_in(root, sshd, monkeypatch, tmp_path, effective, entry, key, let):
    sshd.effective = effective
    files.write(str(tmp_path / "home/.ssh/authorized_keys"), key.encode())
    monkeypatch.setattr(pwd, "getpwall", lambda: [user(tmp_path / "home", **entry)])
    if let:
        login.check(root, comparison())
    else:
        with pytest.raises(LoginRefused, match="ssh-copy-id"):
            login.check(root, comparison())
