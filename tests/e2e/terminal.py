# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A terminal that somebody sits at: tmux's, of a given size and kind."""

from __future__ import annotations

import subprocess
import time

import pytest

PATIENCE = 90  # seconds: Textual takes some to load on a busy machine


class Terminal:
    """A terminal of so many columns and lines, with a shell in it."""

    def __init__(self, name, columns=80, lines=24, term="linux"):
        self._name, self._size, self._term = name, (columns, lines), term

    def __enter__(self):
        columns, lines = map(str, self._size)
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", lines, "env", "-u", "TMUX", "bash", "--norc"
        )
        return self

    def __exit__(self, *_):
        self._tmux("kill-server")

    def _tmux(self, *argv):
        return subprocess.run(["tmux", "-L", self._name, *argv], check=True, capture_output=True, text=True).stdout

    def run(self, *argv):
        """Start a program in it."""
        self._tmux("send-keys", "-l", f"TERM={self._term} exec {' '.join(argv)} 2>>{self._name}.err")
        self._tmux("send-keys", "Enter")

    def keys(self, *keys):
        """Press keys by tmux's names for them."""
        for key in keys:
            self._tmux("send-keys", key)
            time.sleep(0.1)

    def type(self, text):
        """Type a text."""
        self._tmux("send-keys", "-l", text)
        time.sleep(0.3)

    def text(self):
        """What is on it."""
        return self._tmux("capture-pane", "-p")

    def until(self, text, seconds=PATIENCE):
        """Wait for a text."""
        deadline = time.monotonic() + seconds
        while text not in self.text():
            if time.monotonic() > deadline:
                pytest.fail(f"no {text!r} in:\n{self.text()}")
            time.sleep(0.2)
