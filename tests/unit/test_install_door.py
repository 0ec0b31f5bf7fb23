# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door: who comes in gets the installer and nothing else, and what the screen shows is what listens."""

from __future__ import annotations

import asyncio
import socket
import subprocess

import pytest
from installs import Told
from screenshots import Walk

from kos_install import console
from kos_install.engine import door
from kos_install.errors import InstallError
from kos_install.screens import app, keys, plain, prompts, words


@pytest.fixture(autouse=True)
def every_test_for_itself(monkeypatch):
    monkeypatch.setitem(keys._allowed, "files", True)
    yield
    words.use("en")


@pytest.fixture
def listening(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "install.sock"))
        yield tmp_path / "install.sock"


def test_who_comes_in_over_ssh_gets_the_screens_of_a_guest(monkeypatch, listening):
    made = []

    class Installer:
        def __init__(self, _connect, _terminal, **more):
            made.append(more)

        def run(self):
            pass

    monkeypatch.setattr(app, "Installer", Installer)
    monkeypatch.setattr(plain, "run", lambda _connect, **more: made.append(more))
    for term in ("xterm", "dumb"):
        monkeypatch.setenv("TERM", term)
        console.visit(listening)
    assert made == [{"local": False, "guest": True}] * 2


def test_a_guest_names_no_file(monkeypatch, listening, tmp_path):
    (tmp_path / "shadow").write_text("root:$y$secret\n")
    assert "root:$y$secret" in keys.fault("/shadow", tmp_path)
    monkeypatch.setattr(app, "Installer", lambda *_, **__: type("One", (), {"run": lambda _self: None})())
    monkeypatch.setenv("TERM", "xterm")
    console.visit(listening)
    assert "secret" not in keys.fault("/shadow", tmp_path) and keys.fault("/shadow", tmp_path)


def test_a_guest_has_no_shell_and_writes_no_file(monkeypatch):
    async def run():
        monkeypatch.setattr(app.saving, "save", lambda *_, **_more: pytest.fail("a file was written"))
        monkeypatch.setattr(app.tools, "shell", lambda *_: pytest.fail("a shell"))
        async with Walk(Told(), guest=True) as person:
            await person.until("Language")
            await person.press("f9")
            await person.until("Tools")
            assert "Shell" not in person.text() and "1 Verify the medium again" in person.text()
            await person.press("escape", "f2")
            await person.pilot.pause(0.2)
            assert [one.message[:18] for one in person.app._notifications] == ["no file is written"]
            assert "/root/answers.yaml" not in person.text()

    words.use("en")
    asyncio.run(run())


def test_a_guest_at_a_plain_terminal_has_neither(monkeypatch):
    shown = []
    monkeypatch.setattr(prompts, "choose", lambda labels, **_: shown.extend(labels) or len(labels) - 1)

    class Nobody:
        def events(self):
            return iter(())

    plain._Plain(Nobody(), local=False, guest=True)._tools()
    assert shown and not [label for label in shown if "hell" in label or "Save" in label]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def test_a_server_that_is_there_already_is_not_taken_for_the_door():
    door.require_free(free_port())
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(InstallError, match="listens on port"):
        door.require_free(other.getsockname()[1])


def test_a_door_that_does_not_open_shows_no_password(monkeypatch, tmp_path):
    """The screen showed a fingerprint and a password of nothing, and root had that password."""
    ran = []

    def run(argv, **how):
        ran.append(argv[0])
        if argv[0] == "ssh-keygen":
            return real(argv, **how)
        return subprocess.CompletedProcess(argv, 0, "", "")

    real = subprocess.run
    monkeypatch.setattr(door.subprocess, "run", run)
    monkeypatch.setattr(door, "PORT", free_port())
    monkeypatch.setattr(door, "_PATIENCE", 0.5)
    monkeypatch.setattr(door.await_server, "__defaults__", (0.5,))
    with pytest.raises(InstallError, match="did not start"):
        door.open_door([], tmp_path)
    assert "systemd-run" in ran and "chpasswd" not in ran and ran[-1] == "systemctl"


def test_the_server_is_known_by_its_key(monkeypatch):
    said = "127.0.0.1 ssh-ed25519 AAAAother\n"
    monkeypatch.setattr(door, "_run", lambda *_, **__: said)
    door.await_server("AAAAother", 22)
    with pytest.raises(InstallError, match="another SSH server"):
        door.await_server("AAAAours", 22)


def test_a_server_may_take_long_over_its_first_key(monkeypatch):
    """An emulated machine that was still starting took five seconds, and each scan gave up after two."""

    def scan(argv, **_how):
        waits = int(argv[argv.index("-T") + 1])
        return "127.0.0.1 ssh-ed25519 AAAAours\n" if waits >= 10 else ""

    monkeypatch.setattr(door, "_run", scan)
    door.await_server("AAAAours", 22, 15)
    with pytest.raises(InstallError, match="did not start"):
        door.await_server("AAAAours", 22, 0.3)
