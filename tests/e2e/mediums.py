# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Media that are booted: what they say on the serial line, what is typed there, the screen, and the plug."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.kind.kos.lab import host, media, media_tree, medium
from ansible_collections.kind.kos.lab.errors import LabError
from ansible_collections.kind.kos.lab.identity import Lab
from ansible_collections.kind.kos.lab.machines import Boot

# An emulated boot takes 100 s on a quiet machine, and four times that on a busy one.
PATIENCE = 500
# Where a German keyboard has what QEMU, which names places by the American one, calls otherwise.
_GERMAN = {"y": "z", "z": "y", "-": "slash", "\u00fc": "bracket_left"}
_ESCAPES = re.compile(rb"\x1b(\[[0-9:;?=]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>78cM])|\r")


class Machine:
    """A machine that boots a medium. What it says is in `said`, without the escapes for a terminal."""

    def __init__(self, running):
        self.running = running
        self._raw, self._read_so_far, self._text = bytearray(), 0, ""
        self._seen = 0
        self._began = time.monotonic()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while piece := os.read(self.running.process.stdout.fileno(), 65536):
            self._raw += piece

    @property
    def said(self):
        """All that it has said so far."""
        raw = bytes(self._raw)
        if len(raw) != self._read_so_far:
            self._read_so_far, self._text = len(raw), _ESCAPES.sub(b"", raw).decode(errors="replace")
        return self._text

    def pass_on(self, write):
        """Write all that it says as it says it, with the escapes for a terminal, until it is off."""
        passed = 0
        while not self.ended:
            piece = bytes(self._raw[passed:])
            passed += len(piece)
            write(piece) if piece else time.sleep(0.1)

    @property
    def ended(self):
        """Whether it has switched itself off."""
        return self.running.process.poll() is not None

    def listen(self):
        """Wait for nothing that it has said already."""
        self._seen = len(self.said)

    def wait(self, pattern, seconds=PATIENCE):
        """The first match of a pattern in what it says from now on, or has said since the last one; else fails."""
        found = self.wait_for(pattern, seconds=seconds)
        if found is None:
            pytest.fail(f"no {pattern!r} within {seconds} s; it said:\n{self.said[-3000:]}")
        return found

    def wait_for(self, *patterns, seconds=PATIENCE):
        """The first match of whichever pattern comes first; None where none does before it ends or time runs out."""
        wanted = [re.compile(pattern) for pattern in patterns]
        deadline = time.monotonic() + seconds
        while True:
            over = self.ended and not self._reader.is_alive()
            said = self.said
            found = [match for match in (one.search(said, self._seen) for one in wanted) if match]
            if found:
                first = min(found, key=lambda match: match.start())
                self._seen = first.end()
                return first
            if over or time.monotonic() > deadline:
                return None
            time.sleep(1)

    def send(self, text):
        """Type on the serial line."""
        self.running.process.stdin.write(text.encode())
        self.running.process.stdin.flush()

    def answer(self, pattern, text, seconds=PATIENCE):
        """Wait for a question and type the answer, with Enter."""
        self.wait(pattern, seconds)
        time.sleep(0.5)  # who asks may first throw away what was typed before
        self.send(f"{text}\n")

    def type_german(self, text):
        """Type on its own keyboard, which is a German one, with Enter."""
        time.sleep(5)  # who asks on the serial line may ask on the screen a little later
        for letter in text:
            place = _GERMAN.get(letter.lower(), letter.lower())
            self.running.press(*(["shift"] if letter.isupper() else []), place)
            time.sleep(0.5)  # an emulated machine on a busy one takes a key that long
        self.running.press("ret")

    def picture(self, path):
        """A picture of its screen, in a file."""
        self.running.picture(path)
        return path

    def cut(self):
        """Pull the plug."""
        self.running.process.kill()
        self.running.process.wait()

    def seconds(self):
        """How long it has been on."""
        return time.monotonic() - self._began


def shell(machine):
    """From the installer's screens to a shell: F9, and the first of its tools."""
    machine.send("\x1b[20~")
    machine.wait(r"Shell with kai")
    machine.send("1")
    machine.wait(r"exit leads back to the installer")


class Media:
    """Boots media, one after another: on two cores two at once would take twice as long."""

    def __init__(self, identity):
        self.lab = Lab(identity, Path(__file__).resolve().parents[2])
        self.apt = host.require(host.survey())

    @contextlib.contextmanager
    def booted(self, image, **options):
        """A machine that boots an image, as `lab.machines.Boot` has it; off afterwards."""
        found = medium.look(Path(image))
        tree = media_tree.ensure(self.lab, found.architecture, self.apt, print)
        with media.booted(
            self.lab, tree, found, Boot(**options), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as running:
            yield Machine(running)

    def tool(self, architecture, folder, files, program, *argv):
        """The output of a program of the tree that media are booted in: mcopy, qemu-img, virt-fw-vars."""
        tree = media_tree.ensure(self.lab, architecture, self.apt, print)
        line = media_tree.command(tree, folder, files, program, argv)
        return subprocess.run(line, check=True, capture_output=True).stdout


@functools.cache
def unavailable():
    """Why no medium can be booted here; empty where one can."""
    if os.geteuid():
        return "a lab needs root"
    try:
        host.require(host.survey())
    except LabError as error:
        return " ".join(str(error).split())
    return ""
