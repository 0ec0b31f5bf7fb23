# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody who sits at the serial line of a machine: a terminal of 80 columns and 24 lines, and keys."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from terminal import Terminal

# What the kernel says in between is gone after this many seconds: the person asks for the screen to be drawn anew.
_REDRAWN = 60
# What is typed before the screens have moved on goes to the field before: a person looks first.
_LOOKS = 3


@dataclass(frozen=True)
class Seat:
    """The terminal, and the machine that it is plugged into."""

    terminal: Terminal
    machine: object

    def text(self):
        """What is on it."""
        return self.terminal.text()

    def until(self, pattern, seconds=900):
        """Wait for a pattern on it; the match."""
        began = drawn = time.monotonic()
        while not (found := re.search(pattern, self.text(), re.MULTILINE)):
            now = time.monotonic()
            if now - began > seconds or self.machine.ended:
                pytest.fail(f"no {pattern!r} after {now - began:.0f} s in:\n{self.text()}")
            if now - drawn > _REDRAWN:
                self.terminal.keys("C-l")
                drawn = now
            time.sleep(0.5)
        return found

    def press(self, *keys):
        """Press keys, by tmux's names for them, one after another."""
        for key in keys:
            self.terminal.keys(key)
            time.sleep(_LOOKS)

    def type(self, text, shown):
        """Type into the field that is waiting for it, until it stands there."""
        self.terminal.type(text)
        self.until(shown)

    def on(self, shown):
        """Go on, to a page that shows this."""
        self.press("C-n")
        found = self.until(shown)
        time.sleep(_LOOKS)
        return found


@contextlib.contextmanager
def seated(machine, folder):
    """A seat at a machine's serial line."""
    shown, typed = folder / "shown", folder / "typed"
    for pipe in (shown, typed):
        os.mkfifo(pipe)
    with Terminal(f"kos-{os.getpid()}-seat") as terminal:
        # The last keeps the terminal when the machine is off.
        line = f"stty raw -echo; cat </dev/tty >{typed} & cat {shown}; exec sleep 3600"
        terminal.run("sh", "-c", shlex.quote(line))
        threads = [
            threading.Thread(target=_shows, args=(machine, shown), daemon=True),
            threading.Thread(target=_types, args=(machine, typed), daemon=True),
        ]
        for thread in threads:
            thread.start()
        yield Seat(terminal, machine)


def _shows(machine, pipe: Path):
    with pipe.open("wb", buffering=0) as file, contextlib.suppress(BrokenPipeError):
        machine.pass_on(file.write)


def _types(machine, pipe: Path):
    with pipe.open("rb", buffering=0) as file, contextlib.suppress(BrokenPipeError):
        while keys := file.read(4096):
            machine.send(keys.decode())
