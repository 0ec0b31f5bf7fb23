# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a screen or a command talks to the engine: over its socket, or through a command that reaches it elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from .server import LONGEST, SOCKET

# What a client asks SSH for; who comes in through the door gets nothing else but screens.
ATTACH = "kos-install --attach"


class Client:
    """A connection that waits; for commands and for screens of lines."""

    def __init__(self, lines: IO[bytes], out: IO[bytes]) -> None:
        self._lines, self._out = lines, out

    def send(self, do: str, **fields: Any) -> None:
        """Ask for something; the answer comes as events. Raises OSError."""
        self._out.write(_line(do, fields))
        self._out.flush()

    def events(self) -> Iterator[dict[str, Any]]:
        """What the engine tells: first all that happened, then what happens; ends when the engine does."""
        for line in self._lines:
            yield json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go; what the engine does goes on."""
        for stream in (self._out, self._lines):
            with contextlib.suppress(OSError):
                stream.close()


class Socket(Client):
    """A connection to the engine of this machine."""

    def __init__(self, path: Path = SOCKET, timeout: float | None = None) -> None:
        """Connect. Raises OSError where no engine listens."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        super().__init__(self._socket.makefile("rb"), self._socket.makefile("wb"))

    def close(self) -> None:
        """Let go, and wake whoever waits for a line."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        super().close()
        self._socket.close()


class Command(Client):
    """A connection through a command that passes lines on."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError(f"no pipes to {argv[0]}")
        super().__init__(self._process.stdout, self._process.stdin)

    def close(self) -> None:
        """End the command, too."""
        self._process.terminate()
        self._process.wait()
        super().close()


@dataclass(frozen=True)
class Link:
    """A connection for a program that does other things meanwhile."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, do: str, **fields: Any) -> None:
        """Ask for something; the answer comes as events. Raises ConnectionError."""
        self.writer.write(_line(do, fields))
        await self.writer.drain()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What the engine tells: first all that happened, then what happens; ends when the engine does."""
        while line := await self.reader.readline():
            yield json.loads(line)

    def close(self) -> None:
        """Let go; what the engine does goes on."""
        self.writer.close()


async def connect(path: Path = SOCKET) -> Link:
    """A connection to the engine of this machine. Raises OSError where none listens."""
    return Link(*await asyncio.open_unix_connection(path, limit=LONGEST))


async def through(argv: Sequence[str]) -> Link:
    """A connection through a command that passes lines on, such as ssh HOST ATTACH. Raises OSError."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, limit=LONGEST
    )
    if process.stdin is None or process.stdout is None:
        raise OSError(f"no pipes to {argv[0]}")
    return Link(process.stdout, process.stdin)


def attach(path: Path = SOCKET) -> None:
    """Pass lines on between the engine and stdin and stdout, until one of them ends. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as engine, selectors.DefaultSelector() as ready:
        engine.connect(str(path))
        ready.register(0, selectors.EVENT_READ, engine.fileno())
        ready.register(engine, selectors.EVENT_READ, 1)
        with contextlib.suppress(BrokenPipeError):
            while True:
                for key, _events in ready.select():
                    piece = os.read(key.fd, 1 << 16)
                    if not piece:
                        return
                    _write_all(key.data, piece)


def _write_all(descriptor: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]


def _line(do: str, fields: dict[str, Any]) -> bytes:
    return json.dumps({"do": do, **fields}, ensure_ascii=False).encode() + b"\n"
