# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installing over SSH: the host's key is the one that its screen shows, or nothing is sent; nobody gets a shell."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

import pytest

from kos_install import console, remote
from kos_install.engine import client, door
from kos_install.errors import InstallError, UsageError

BLOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(32))).decode()
LINE = f"node ssh-ed25519 {BLOB}"
FINGERPRINT = "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(BLOB)).digest()).decode().rstrip("=")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Programs that write down how they were called; the given text is what they print."""

    def put(name, script):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/called\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    put("ssh-keyscan", f"echo '# a comment'; echo '{LINE}'")
    put("ssh", "exit 0")
    put.called = lambda: (tmp_path / "called").read_text() if (tmp_path / "called").exists() else ""
    return put


def test_the_pinned_key_is_the_only_one_that_ssh_knows(programs):
    with remote.pinned("root@node", FINGERPRINT) as argv:
        known = next(word.partition("=")[2] for word in argv if word.startswith("UserKnownHostsFile="))
        assert Path(known).read_text() == f"{LINE}\n"
        assert "StrictHostKeyChecking=yes" in argv and "GlobalKnownHostsFile=/dev/null" in argv
        assert argv[-2:] == ["node", client.ATTACH] and argv[argv.index("-l") + 1] == "root"
    assert not os.path.exists(known)
    assert "StrictHostKeyChecking=no" not in programs.called() and "-O exit" in programs.called()


def test_another_key_than_the_one_given_is_refused_before_anything_is_sent(programs):
    with pytest.raises(UsageError, match="somebody may be in between"), remote.pinned("node", "SHA256:" + "A" * 43):
        pass
    assert "\nssh " not in programs.called()


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_what_is_no_port_is_not_taken_for_a_host_that_is_silent(programs, port):
    said = f"{port} is no port: they go from 1 to 65535"
    with pytest.raises(UsageError, match=said), remote.pinned(f"root@node:{port}", FINGERPRINT):
        pass
    assert programs.called() == ""


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "", "root@", "$(x)"])
def test_what_is_no_host_is_refused(programs, host):
    with pytest.raises(UsageError), remote.pinned(host, FINGERPRINT):
        pass
    assert not programs.called()


def test_without_a_fingerprint_somebody_has_to_compare(programs, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(UsageError, match="give --fingerprint"), remote.pinned("node", None):
        pass
    assert "\nssh " not in programs.called()


def test_a_host_without_ssh_is_said(programs):
    programs("ssh-keyscan", "exit 1")
    with pytest.raises(UsageError, match="open the door"), remote.pinned("node", FINGERPRINT):
        pass


def test_a_door_has_a_password_once_and_only_the_installer(programs, tmp_path, monkeypatch):
    made = f'touch {tmp_path}/door/key; echo "ssh-ed25519 {BLOB} x" > {tmp_path}/door/key.pub'
    programs("ssh-keygen", f'case "$*" in *-l*) echo 256 {FINGERPRINT} x;; *) {made};; esac')
    programs("chpasswd", f"cat > {tmp_path}/typed")
    programs("systemctl", "exit 1")
    programs("systemd-run", "exit 0")
    monkeypatch.setattr(door, "require_free", lambda _port: None)
    monkeypatch.setattr(door, "await_server", lambda _key, _port: None)
    opened = door.open_door(["192.0.2.7 (eth0)"], tmp_path / "door")
    assert opened["fingerprint"] == FINGERPRINT and opened["addresses"] == ["192.0.2.7 (eth0)"]
    assert (tmp_path / "typed").read_text() == f"root:{opened['password']}\n" and len(opened["password"]) == 14
    assert opened["password"] not in programs.called(), "no secret in arguments"
    config = (tmp_path / "door/sshd_config").read_text().splitlines()
    assert {"ForceCommand /usr/bin/kos-install --visit", "DisableForwarding yes"} <= {*config}
    assert (tmp_path / "door").stat().st_mode & 0o777 == 0o700
    assert door.open_door([], tmp_path / "door")["password"] != opened["password"]


def test_a_door_that_cannot_be_opened_says_why(programs, tmp_path):
    programs("ssh-keygen", "echo no randomness >&2; exit 1")
    with pytest.raises(InstallError, match="no randomness"):
        door.open_door([], tmp_path / "door")


def test_who_comes_in_gets_the_engine_or_the_screens(monkeypatch, tmp_path):
    got = []
    monkeypatch.setattr(client, "attach", lambda path: got.append("engine"))
    monkeypatch.setattr(console, "_screens", lambda *_args, **_more: got.append("screens") or 0)
    (tmp_path / "s").touch()
    for command in (client.ATTACH, "rm -rf /", None):
        if command is None:
            monkeypatch.delenv("SSH_ORIGINAL_COMMAND", raising=False)
        else:
            monkeypatch.setenv("SSH_ORIGINAL_COMMAND", command)
        assert console.visit(tmp_path / "s") == 0
    assert got == ["engine", "screens", "screens"]
