# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine as a process: JSON lines over a Unix socket that only its own user may open.

Losing a client costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .engine import Engine
from .history import History
from .world import World

SOCKET = Path("/run/kos/install.sock")
LONGEST = 1 << 22  # bytes of one line
# A client that does not read for this long is let go: it comes back and is told everything again.
_BACKLOG = 1 << 23  # bytes
_FAREWELL = 2.0  # seconds for clients to go when the engine ends
_LOOK_EVERY = 1.0  # seconds between two looks at the verification of the medium


def serve(world: World, path: Path = SOCKET) -> None:
    """Run the engine until SIGTERM or SIGINT. Raises UsageError where another one runs, OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(path.with_name(f"{path.stem}-engine.lock")):
        asyncio.run(_Server(world).run(path))


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError("an engine of the installer runs already: kos-install without options shows it") from None
        yield
    finally:
        os.close(descriptor)


class _Server:
    """Clients of one engine."""

    def __init__(self, world: World) -> None:
        self._clients: dict[asyncio.StreamWriter, int] = {}  # and the number of the last event each was told
        self._serving: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._history = History(self._told)
        self._engine = Engine(world, self._history, _beside)

    async def run(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._serve, path, limit=LONGEST)
        finally:
            os.umask(before)
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, ended.set)
        async with server:
            watching = asyncio.create_task(self._watch())
            await self._loop.run_in_executor(None, self._engine.begin)
            await ended.wait()
            watching.cancel()
            self._engine.stop()
            await self._let_go()
        path.unlink(missing_ok=True)

    async def _let_go(self) -> None:
        """Whoever is still connected hears the end of it: a task that is cancelled instead leaves a traceback."""
        for writer in self._clients:
            writer.close()
        if self._serving and (await asyncio.wait(self._serving, timeout=_FAREWELL))[1]:
            # They do not even read what is left for them.
            for writer in self._clients:
                writer.transport.abort()
            await asyncio.wait(self._serving, timeout=_FAREWELL)

    async def _watch(self) -> None:
        while True:
            await asyncio.get_running_loop().run_in_executor(None, self._engine.look_at_medium)
            await asyncio.sleep(_LOOK_EVERY)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        kept = self._history.replay()
        writer.write(b"".join(map(_line, kept)))
        self._clients[writer] = kept[-1]["seq"] if kept else 0
        try:
            while line := await reader.readline():
                await asyncio.get_running_loop().run_in_executor(None, self._engine.request, _request(line))
        except (ValueError, ConnectionError):
            pass  # no line of ours: whoever it is, is let go
        finally:
            self._clients.pop(writer, None)
            writer.close()

    def _told(self, event: dict[str, Any]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._send, event["seq"], _line(event))

    def _send(self, number: int, line: bytes) -> None:
        for writer, last in list(self._clients.items()):
            if writer.transport.get_write_buffer_size() > _BACKLOG:
                del self._clients[writer]
                writer.transport.abort()
            elif number > last:  # else it was in the history that this client was told when it came
                self._clients[writer] = number
                writer.write(line)


def _request(line: bytes) -> dict[str, Any]:
    asked = json.loads(line)
    if not isinstance(asked, dict):
        raise ValueError("a request is a JSON object")
    return asked


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def _beside(work: Callable[[], None]) -> None:
    """An install goes on whatever becomes of the loop that serves screens."""
    threading.Thread(target=work, name="install").start()
