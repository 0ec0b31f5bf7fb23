# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a lab node, as a program that uses the cluster there would, with Python alone.

Usage: valkey_client.py write PORT PREFIX COUNT wait|plain, or: stored PORT PREFIX COUNT. The password comes on standard
input. All keys have one hash tag and so one primary; `write` prints the numbers that were acknowledged until the end,
or until the server was gone.
"""

from __future__ import annotations

import json
import socket
import sys

BATCH = 50


class Server:
    """One connection, as the user kos."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
        self._answers = self._socket.makefile("rb")
        self.ask("AUTH", "kos", sys.stdin.readline().strip())

    def ask(self, *words):
        """The answer to one command."""
        return self.ask_all([words])[0]

    def ask_all(self, commands):
        """The answers to commands that are sent together; raises OSError when the server is gone."""
        self._socket.sendall(b"".join(map(encoded, commands)))
        return [self._answer() for _command in commands]

    def _answer(self):
        line = self._answers.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server is gone")
        kind, text = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise RuntimeError(text)
        if kind == b"$":
            return None if text == "-1" else self._answers.read(int(text) + 2)[:-2].decode()
        return int(text) if kind == b":" else text


def encoded(words):
    """A command as the protocol has it."""
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def key(prefix, number):
    """A key of the one slot that the tests write to."""
    return f"{{shard}}:{prefix}:{number}"


def write(server, prefix, count, how):
    """Write numbers in order; with `wait`, only what a replica has too counts as acknowledged."""
    acknowledged = []
    try:
        for first in range(0, int(count), BATCH):
            numbers = range(first, first + BATCH)
            commands = [("SET", key(prefix, number), number) for number in numbers]
            answers = server.ask_all([*commands, ("WAIT", 1, 1000)] if how == "wait" else commands)
            if how == "plain" or answers[-1] >= 1:
                acknowledged += [number for number, said in zip(numbers, answers, strict=False) if said == "OK"]
    except OSError:
        pass
    print(json.dumps(acknowledged))


def stored(server, prefix, count):
    """Print the numbers that are there."""
    found = server.ask_all([("GET", key(prefix, number)) for number in range(int(count))])
    print(json.dumps([number for number, value in enumerate(found) if value == str(number)]))


port, verb = sys.argv[2], {"write": write, "stored": stored}[sys.argv[1]]
verb(Server(port), *sys.argv[3:])
