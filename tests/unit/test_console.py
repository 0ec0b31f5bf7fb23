# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The console of a medium: what it says, in 80 columns and letters that every font has."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios

import disks
import pytest
from disks import MIB
from rich.console import Console
from signatures import signer

from ansible_collections.kind.kos.plugins.plugin_utils import media
from ansible_collections.kind.kos.plugins.plugin_utils.media import About
from kos_install import machine, medium, screen
from kos_install.machine import Disk, Machine
from kos_install.medium import BROKEN, GOOD, RUNNING, UNKNOWN, Verification
from kos_install.screen import View

RECORD = {"profile": "personal_node", "output": "usb", "architecture": "amd64", "made": 1750000000}
HERE = Machine(
    4,
    7600,
    "on",
    (Disk("/dev/sda", 32 * 10**9, "Ultra Fit"), Disk("/dev/nvme0n1", 512 * 10**9, "")),
    ("192.0.2.4 (eth0)",),
    ("eth0",),
)


def shown(*parts):
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=False)
    for part in parts:
        console.print(part)
    return stream.getvalue()


def test_the_screen_fits_a_serial_line():
    short = ["memory: 8192 MB needed, 2048 MB here", "disk: 64 GB needed, 20 GB here"]
    broken = Verification(BROKEN, said=tuple(f"kos-root, bytes {n}: it is not what was made" for n in range(9)))
    text = shown(screen.head(View(RECORD, HERE, "/dev/sda", short)), screen.verification(broken), screen.foot())
    assert all(len(line) <= 80 for line in text.splitlines()) and len(text.splitlines()) <= 22
    assert set(text) <= set(map(chr, range(32, 127))) | {"\n", "…"}


def test_the_screen_says_what_there_is():
    text = shown(screen.head(View(RECORD, HERE, "/dev/sda", [])))
    for said in (
        "personal_node, usb for amd64, packages of 2025-06-15",
        "32 GB, Ultra Fit (this medium)",
        "4 cores",
        "met",
    ):
        assert said in text
    assert "(this medium)" not in text.splitlines()[4]
    assert "not started from one" in shown(screen.head(View({}, HERE, "", None)))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (Verification(RUNNING), "Verifying this medium …"),
        (Verification(RUNNING, 25, 100), "25 %"),
        (Verification(GOOD, 2 * 10**9, 2 * 10**9, "maker"), "all 2.0 GB of this medium are as maker signed them"),
        (Verification(BROKEN, said=("a", "b", "c", "d", "e")), "and 2 more: journalctl -u kos-verify"),
        (Verification(UNKNOWN, said=("there is none",)), "Not verified: there is none"),
    ],
)
def test_what_the_verification_says(now, said):
    assert said in screen.verification(now).plain


def test_a_small_disk_has_a_size():
    small = dataclasses.replace(HERE, disks=(Disk("/dev/sda", 512 * 10**6, ""), Disk("/dev/sdb", 10**9, "")))
    text = shown(screen.head(View(RECORD, small, "", None)))
    assert "/dev/sda, 512 MB" in text and "/dev/sdb, 1 GB" in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "192.0.2.4 (eth0)"),
        ({"addresses": ()}, "no address yet (eth0)"),
        ({"addresses": (), "cards": ()}, "no network card that this system knows"),
    ],
)
def test_no_network_card_is_told_from_no_address(more, said):
    assert said in shown(screen.head(View(RECORD, dataclasses.replace(HERE, **more), "", None)))


def test_a_bridge_is_no_network_card(tmp_path):
    (tmp_path / "sys/class/net/eth0/device").mkdir(parents=True)
    (tmp_path / "sys/class/net/lo").mkdir()
    assert machine.cards(tmp_path) == ("eth0",)


def test_the_menu_is_not_dim():
    foot, stream = screen.foot(), io.StringIO()
    Console(file=stream, width=80, force_terminal=True, color_system="standard").print(foot)
    menu = stream.getvalue().splitlines()[-1]
    assert "5 power off" in menu and menu.startswith("\x1b[1m")


def test_it_is_honest_about_the_installer():
    assert "Installing onto a disk is not part of this medium" in screen.foot().plain


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "BIOS"),
        ({"SecureBoot": b"\6\0\0\0\1"}, "on"),
        ({"SecureBoot": b"\6\0\0\0\0"}, "off"),
        ({"Boot": b""}, "unknown"),
    ],
)
def test_secure_boot(tmp_path, files, said):
    for name, content in files.items():
        path = tmp_path / f"sys/firmware/efi/efivars/{name}-8be4df61-93ca-11d2-aa0d-00e098032b8c"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    assert said in machine.secure_boot(tmp_path)


def test_disks_and_addresses():
    rows = [
        {"path": "/dev/sda", "size": 9, "type": "disk", "model": " X "},
        {"path": "/dev/sr0", "size": 1, "type": "rom"},
    ]
    assert machine.disks({"blockdevices": rows}) == (Disk("/dev/sda", 9, "X"),)
    listing = [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
        {
            "ifname": "eth0",
            "addr_info": [{"local": "192.0.2.4", "scope": "global"}, {"local": "fe80::1", "scope": "link"}],
        },
    ]
    assert machine.addresses(listing) == ("192.0.2.4 (eth0)",)


def test_the_medium_does_not_count_as_a_disk():
    minimum = {"disk_gb": 64, "memory_mb": 1}
    assert machine.short_of(HERE, minimum, None) == []
    (said,) = machine.short_of(HERE, minimum, machine.Path("/dev/nvme0n1"))
    assert said == "disk: 64 GB needed, 32 GB here"


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
    slow = "('pydantic', 'yaml', 'ansible', 'jinja2')"
    code = f"import sys, kos_install.main; print([one for one in {slow} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_traceback_reaches_the_screen(tmp_path):
    """On a terminal of its own: whatever fails is one sentence, and the next key shows the screen again."""
    code = (
        "import sys; from kos_install import main, machine\n"
        "def broken(): raise RuntimeError('a fault')\n"
        "machine.look = broken; sys.argv = ['kos-install']; main.main()\n"
    )
    with (tmp_path / "journal").open("wb") as journal, Terminal(code, stderr=journal) as terminal:
        terminal.wait("Press Enter")
        terminal.type(b"\n")
        terminal.wait("Press Enter")
    said = terminal.said
    assert said.count("The console failed (RuntimeError)") == 2 and "Traceback" not in said
    assert "a fault" in (tmp_path / "journal").read_text()


def test_a_key_leads_away_and_back():
    code = (
        "import sys; from kos_install import main, machine, medium\n"
        "main.subprocess.run = lambda argv, **_more: print('RAN', argv[0])\n"
        "machine.look = lambda: machine.Machine(1, 2, 'off', (), ())\n"
        "machine.short_of = lambda *_: []\n"
        "medium.progress = lambda: medium.Verification(medium.UNKNOWN, said=('no medium',))\n"
        "sys.argv = ['kos-install']; main.main()\n"
    )
    with Terminal(code) as terminal:
        terminal.wait("5 power off")
        terminal.child.send_signal(signal.SIGTSTP)
        terminal.type(b"1")
        terminal.wait("RAN /bin/bash")
        terminal.wait("5 power off")
        terminal.type(b"x\x1b[5~")
        terminal.wait("That key does nothing here: 1 to 5 do")
        drawn = terminal.said.count("Medium")
        terminal.type(b"5")
        terminal.wait("RAN systemctl")
    said = terminal.said
    assert drawn == said[: said.index("RAN systemctl")].count("Medium")
    assert said.count("That key does nothing") == 1
    assert "kai is here" in said and "Not verified: no medium" in said


def test_the_shell_is_one_that_a_person_can_use(tmp_path):
    """As a getty runs it: the terminal is its own, and what it says of itself goes to the journal."""
    code = "from rich.console import Console; from kos_install import main; main.act('1', Console())"
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
