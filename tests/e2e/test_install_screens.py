# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installer's screens in a real terminal, driven by keys; the engine is real, the machine described."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from installs import CANARY, DESK, KEY, RECOVERY
from terminal import PATIENCE, Terminal

from kos_install.engine.client import Socket

RECORDED = "\n".join(
    [
        '{"kind": "wipe", "log": "$ wipefs --all /dev/sda"}',
        f'{{"kind": "luks", "recovery_key": "{RECOVERY}"}}',
        f'{{"kind": "luks", "log": "a careless program said {CANARY} and {RECOVERY}"}}',
        *(
            f'{{"kind": "unpack", "after": 1, "done": {at * 10**8}, "total": 2600000000, "unit": "bytes"}}'
            for at in range(27)
        ),
    ]
)
pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux here")


@contextlib.contextmanager
def engine(folder):
    (folder / "machine.json").write_text(DESK.model_dump_json())
    (folder / "recorded.jsonl").write_text(RECORDED)
    socket = folder / "install.sock"
    argv = [sys.executable, "-m", "kos_install.main", "--engine", "--socket", str(socket)]
    argv += ["--hardware", str(folder / "machine.json"), "--replay", str(folder / "recorded.jsonl")]
    with (folder / "engine.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE
            while not socket.exists():
                assert process.poll() is None and time.monotonic() < deadline, (folder / "engine.log").read_text()
                time.sleep(0.1)
            yield socket
        finally:
            process.terminate()
            process.wait(30)


def answer(terminal):
    """From the first page to the confirmation, by keys alone."""
    terminal.until("Language")
    terminal.keys("C-n")
    terminal.until("big enough")
    terminal.keys("C-n")
    terminal.until("Where shall")
    terminal.keys("Tab", "Down", "Down")
    terminal.until("EVERYTHING ON THIS DISK")
    terminal.keys("C-n")
    terminal.until("Passphrase")
    terminal.type(CANARY)
    terminal.keys("Tab")
    terminal.type(CANARY)
    terminal.until("Strength")
    assert CANARY not in terminal.text()
    terminal.keys("C-n")
    terminal.until("DHCP")
    terminal.keys("C-n")
    terminal.until("User name")
    terminal.keys("Tab", "Tab", "Tab", "Tab")
    terminal.type(KEY)
    terminal.keys("C-n")
    terminal.until("Time zone")
    terminal.keys("C-n")
    terminal.until("big enough")
    terminal.keys("C-n")
    terminal.until("All on /dev/sda will be lost")
    terminal.type("WDC WD20EFRX")
    terminal.keys("C-n")


def test_an_install_by_keys_whose_screen_is_killed_in_the_middle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "kos_install.main", "--socket"]
    with engine(tmp_path) as socket:
        assert socket.stat().st_mode & 0o777 == 0o600
        with Terminal(f"kos-{os.getpid()}-a") as terminal:
            terminal.run(*command, str(socket))
            answer(terminal)
            terminal.until("Unpack the system  ")
            terminal.until("left")
        # Its terminal is gone, with the client in it. Another one, of another kind, finds the install going on.
        with Terminal(f"kos-{os.getpid()}-b", lines=40, term="vt220") as terminal:
            terminal.run(*command, str(socket))
            terminal.until("[>] Unpack the system")
            terminal.until("[ I have written it down ]")
            assert RECOVERY.split("-")[0] in terminal.text()
            terminal.keys("Enter")
            terminal.until("SSH fingerprint")
            shown = terminal.text()
        with Socket(socket, timeout=10) as client:
            kept = []
            with contextlib.suppress(TimeoutError):
                for event in client.events():
                    kept.append(event)
    assert "kOS is installed" in shown
    assert kept[-1]["event"] == "state" and kept[-1]["state"] == "done"
    everything = str(kept) + "".join(path.read_text() for path in tmp_path.iterdir() if path.suffix in {".log", ".err"})
    assert CANARY not in everything and RECOVERY not in everything


def test_a_second_engine_is_refused(tmp_path):
    with engine(tmp_path) as socket:
        argv = [sys.executable, "-m", "kos_install.main", "--engine", "--socket", str(socket)]
        argv += ["--hardware", str(tmp_path / "machine.json"), "--replay", str(tmp_path / "recorded.jsonl")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2 and "an engine of the installer runs already" in done.stderr
