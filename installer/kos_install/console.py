# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which screens a terminal gets, and whose engine they show: this machine's, another one's, or that of a rehearsal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ansible_collections.kind.kos.cli.exits import Exit

from .errors import UsageError

_DUMB = ("", "dumb", "unknown")
_PATIENCE = 30.0  # seconds until an engine that was just started listens


def here(socket: Path | None, plain: bool) -> int:
    """The screens of this machine's install; on a console of a medium, which systemd runs, they never end."""
    if not sys.stdin.isatty():
        raise UsageError("the screens need a terminal; without one: kos-install --answers FILE")
    console = os.getppid() == 1
    _say_at_once()
    if not console:
        return _screens(["--socket", str(_listening(socket))], plain, console)
    for key in (signal.SIGTSTP, signal.SIGQUIT):
        # A console that somebody stopped would be gone for good; a handler, unlike ignoring, ends with a shell's exec.
        signal.signal(key, lambda *_: None)
    _forever(lambda: _screens([], plain, console))
    return Exit.OK


def _say_at_once() -> None:
    """What the screens are made of takes seconds to load, on a small machine many."""
    if sys.stdout.isatty():
        print("\r\nkOS: the installer starts ...\r", flush=True)


def _forever(run: Callable[[], object]) -> None:
    while True:
        try:
            run()
        except (KeyboardInterrupt, EOFError):
            continue
        except Exception as error:  # whatever it is: a person reads a sentence, and the journal has the rest
            traceback.print_exc(file=sys.stderr)
            print(f"\r\nThe screens failed ({type(error).__name__}); journalctl -b has the details. Press Enter.\r")
            with contextlib.suppress(EOFError, KeyboardInterrupt):
                input()


def _screens(socket: Sequence[str], plain: bool, console: bool, guest: bool = False) -> int:
    from .engine import client
    from .engine.server import SOCKET

    path = Path(socket[1]) if socket else SOCKET
    if plain or os.environ.get("TERM", "") in _DUMB:
        from .screens import plain as lines

        lines.run(lambda: client.Socket(path), local=not guest, guest=guest)
        return Exit.OK
    from .screens import terminal
    from .screens.app import Installer

    Installer(lambda: client.connect(path), terminal.look(console=console), local=not guest, guest=guest).run()
    return Exit.OK


def _listening(socket: Path | None) -> Path:
    from .engine.server import SOCKET

    path = socket or SOCKET
    if not path.exists():
        raise UsageError(f"no engine listens at {path}: start this machine from a medium of kOS, or try --remote")
    return path


def rehearse(hardware: Path, replay: Path, plain: bool) -> int:
    """The screens with an engine of their own, which plays what was recorded: nothing is written anywhere.

    Raises ConfigurationError, InstallError for files that are none of these.
    """
    _say_at_once()
    from .engine import replay as replaying
    from .hardware import describe

    # Of the engine, which is another process, nobody would see what is wrong.
    replaying.world(describe.load(hardware), replaying.recording(replay))
    with tempfile.TemporaryDirectory(prefix="kos-install-") as folder:
        path = Path(folder) / "install.sock"
        with _engine(path, "--hardware", str(hardware), "--replay", str(replay)):
            return _screens(["--socket", str(path)], plain, console=False)


@contextlib.contextmanager
def _engine(path: Path, *more: str) -> Iterator[None]:
    # It ends with us, whatever becomes of us: a rehearsal leaves nothing behind.
    argv = ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m", "kos_install.main"]
    argv += ["--engine", "--socket", str(path), *more]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise UsageError("the engine of the rehearsal did not start: see what it said above")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def visit(socket: Path | None) -> int:
    """What somebody gets who comes in over SSH: the engine's lines where these are asked for, else the screens.

    They run as root on a machine that is not the visitor's: no shell, and no file that the visitor names.
    """
    from .engine import client
    from .engine.server import SOCKET
    from .screens import keys

    if os.environ.get("SSH_ORIGINAL_COMMAND") == client.ATTACH:
        client.attach(socket or SOCKET)
        return Exit.OK
    keys.name_no_files()
    return _screens(["--socket", str(_listening(socket))], plain=False, console=False, guest=True)


def remote(host: str, fingerprint: str | None, plain: bool) -> int:
    """The screens here, the engine over there. Raises UsageError where the host is not the one that was named."""
    from . import remote as reaching
    from .engine import client

    with reaching.pinned(host, fingerprint) as argv:
        if plain or os.environ.get("TERM", "") in _DUMB:
            from .screens import plain as lines

            lines.run(lambda: client.Command(argv), local=False)
            return Exit.OK
        from .screens import terminal
        from .screens.app import Installer

        Installer(lambda: client.through(argv), terminal.look(), local=False).run()
    return Exit.OK
