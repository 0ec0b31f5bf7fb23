# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The console of a medium: whether the medium is whole, and that whoever sits there never meets a traceback."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios

import disks
import pytest
from disks import MIB
from signatures import signer

from ansible_collections.kind.kos.plugins.plugin_utils import media
from ansible_collections.kind.kos.plugins.plugin_utils.media import About
from kos_install import medium
from kos_install.hardware import addresses
from kos_install.medium import BROKEN, GOOD, RUNNING, UNKNOWN, Verification

RECORD = {"profile": "personal_node", "output": "usb", "architecture": "amd64", "made": 1750000000}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (Verification(GOOD, 2 * 10**9, 2 * 10**9, "maker"), "all 2.0 GB of this medium are as maker signed them"),
        (Verification(BROKEN, said=("a", "b")), "BROKEN"),
        (Verification(UNKNOWN, said=("there is none",)), "Not verified: there is none"),
    ],
)
def test_what_the_verification_says(now, said):
    assert said in medium.sentence(now)


def test_addresses():
    listing = [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
        {
            "ifname": "eth0",
            "addr_info": [{"local": "192.0.2.4", "scope": "global"}, {"local": "fe80::1", "scope": "link"}],
        },
    ]
    assert addresses.listed(listing) == ["192.0.2.4 (eth0)"]


def test_its_own_disk_is_that_of_the_proved_root(tmp_path):
    (tmp_path / "sys/devices/usb/sdb/sdb3").mkdir(parents=True)
    (tmp_path / "sys/class/block/dm-0/slaves").mkdir(parents=True)
    (tmp_path / "dev/mapper").mkdir(parents=True)
    assert medium.own_disk(tmp_path) is None
    (tmp_path / "dev/dm-0").touch()
    (tmp_path / "dev/mapper/root").symlink_to("../dm-0")
    (tmp_path / "sys/class/block/sdb3").symlink_to("../../devices/usb/sdb/sdb3")
    (tmp_path / "sys/class/block/dm-0/slaves/sdb3").touch()
    assert str(medium.own_disk(tmp_path)) == "/dev/sdb"


@pytest.fixture
def stick(tmp_path):
    path = tmp_path / "stick"
    path.write_bytes(disks.image(12 * MIB, [("kos-root", MIB, 9 * MIB), ("kos-manifest", 10 * MIB, MIB)]))
    media.embed(path, media.describe(path, About("personal_node", "usb", "amd64", 1, "ab"), signer()))
    (tmp_path / "keys").mkdir()
    key, comment = signer().public.rsplit(" ", 1)
    (tmp_path / "keys/maker.pub").write_text(f"{key} {comment}\n")
    return path


def test_the_verification_is_left_for_every_console(tmp_path, stick):
    state = tmp_path / "run/verification.json"
    assert medium.progress(state) == Verification(RUNNING)
    medium.verify(stick, medium.known(tmp_path / "keys"), state)
    assert medium.progress(state).state == GOOD and medium.progress(state).signer
    with stick.open("r+b") as stream:
        stream.seek(3 * MIB)
        stream.write(b"?")
    medium.verify(stick, medium.known(tmp_path / "keys"), state)
    assert medium.progress(state).state == BROKEN and "kos-root, bytes 1048576" in medium.progress(state).said[0]


def test_what_cannot_be_verified_is_not_called_broken(tmp_path):
    state = tmp_path / "verification.json"
    assert medium.verify(None, {}, state).state == UNKNOWN
    assert medium.verify(tmp_path / "gone", {}, state).state == UNKNOWN
    state.write_text("{")
    assert medium.progress(state) == Verification(RUNNING)


def test_a_record_that_is_missing_is_none(tmp_path):
    assert medium.record(tmp_path / "none.json") == {}
    (tmp_path / "medium.json").write_text(json.dumps(RECORD))
    assert medium.record(tmp_path / "medium.json") == RECORD


def test_it_starts_without_what_is_slow_to_load():
    slow = "('pydantic', 'yaml', 'ansible', 'jinja2', 'textual', 'rich')"
    code = f"import sys, kos_install.main, kos_install.console; print([one for one in {slow} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_traceback_reaches_the_screen(tmp_path):
    """On a terminal of its own: whatever fails is one sentence, and the next key shows the screen again."""
    code = (
        "from kos_install import console\n"
        "def broken(*_, **__): raise RuntimeError('a fault')\n"
        "console._screens = broken; console.os.getppid = lambda: 1\n"
        "console.here(None, False)\n"
    )
    with (tmp_path / "journal").open("wb") as journal, Terminal(code, stderr=journal) as terminal:
        terminal.wait("the installer starts")
        terminal.wait("Press Enter")
        terminal.type(b"\n")
        terminal.wait("Press Enter")
    said = terminal.said
    assert said.count("The screens failed (RuntimeError)") == 2 and "Traceback" not in said
    assert "a fault" in (tmp_path / "journal").read_text()


def test_the_shell_is_one_that_a_person_can_use(tmp_path):
    """As a getty runs it: the terminal is its own, and what it says of itself goes to the journal."""
    code = "from kos_install.screens import tools; tools.shell('kai is here')"
    environ = {**os.environ, "HOME": str(tmp_path), "LC_ALL": "C"}
    with (tmp_path / "journal").open("wb") as journal:
        terminal = Terminal(code, stderr=journal, env=environ, preexec_fn=own_terminal)
    with terminal:
        terminal.wait("kai is here")
        terminal.type(b"PS1=rea''dy:\n")
        terminal.wait("ready:")
        terminal.type(b"ls /nonexi''stent\n")
        terminal.wait("'/nonexistent': No such file or directory")
        terminal.type(b"shopt -o moni''tor\n")
        terminal.wait("monitor")
        terminal.wait("on")
        terminal.type(b"exit\n")
        assert terminal.child.wait(60) == 0
    assert "no job control" not in terminal.said and not (tmp_path / "journal").read_text()


def own_terminal():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """What a console says on a terminal of its own; a wait goes on where the last one ended."""

    def __init__(self, code, **more):
        self.above, below = pty.openpty()
        self.child = subprocess.Popen([sys.executable, "-c", code], stdin=below, stdout=below, **more)
        self.said, self.seen = "", 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()

    def wait(self, text):
        while text not in self.said[self.seen :]:
            if not select.select([self.above], [], [], 60)[0]:
                raise AssertionError(f"no '{text}' in: {self.said[self.seen :]}")
            self.said += os.read(self.above, 4096).decode()
        self.seen = self.said.index(text, self.seen) + len(text)

    def type(self, keys):
        os.write(self.above, keys)
