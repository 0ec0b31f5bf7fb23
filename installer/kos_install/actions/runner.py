# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that starts programs: no shell, a clean environment, and an error that says what the program said.

What a program must not show to others, a passphrase, goes in by `stdin` or by a file descriptor; it is never logged.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from ..errors import ApplyFailed

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# systemd's tools take their answers from it too: nothing of whoever started the engine may reach them.
ENVIRON = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"}
_LAST_LINES = 8
_WATCHED_EVERY = 0.5  # seconds
_GRACE = 5  # seconds that a program has to end by itself

Log = Callable[[str], None]
# It hears every half second of the running program's id, and may raise to stop it.
Watch = Callable[[int], None]


def _nobody(_text: str) -> None:
    """Whoever wants no log."""


def run(
    argv: Sequence[str], *, log: Log = _nobody, stdin: str = "", files: Sequence[int] = (),
    environ: Mapping[str, str] | None = None, watch: Watch | None = None,
) -> str:  # fmt: skip
    """The standard output of a program that ends well. `files` are descriptors that it inherits.

    It ends with us, whatever becomes of us: a Ctrl-C, an error of `watch` and even SIGKILL leave nothing running.
    Raises ApplyFailed with the last of what it said.
    """
    said, code = outcome(argv, log=log, stdin=stdin, files=files, environ=environ, watch=watch)
    if code:
        raise ApplyFailed(f"{argv[0]} failed ({code}): {_last_words(said)}")
    return said


def outcome(
    argv: Sequence[str], *, log: Log = _nobody, stdin: str = "", files: Sequence[int] = (),
    environ: Mapping[str, str] | None = None, watch: Watch | None = None,
) -> tuple[str, int]:  # fmt: skip
    """What `run` says, or what a program that failed complained of; and its exit code. Raises ApplyFailed for none."""
    log(f"$ {shlex.join(argv)}")
    # Files, not pipes: nothing has to be read while it runs, however much it says.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, _given(stdin) as given:
        try:
            # Not setpriv's option for the session: Ctrl-C at a terminal is for us, who then end the program.
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv], stdin=given, stdout=output, stderr=errors,
                env={**ENVIRON, **(environ or {})}, pass_fds=tuple(files), start_new_session=True, umask=0o022,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise ApplyFailed("there is no setpriv here: the installer runs on a medium of kOS") from error
        _wait(process, watch)
        said, complained = _text(output), _text(errors)
        if complained.strip():
            log(complained.strip())
        return (complained or said) if process.returncode else said, process.returncode


def succeeds(argv: Sequence[str], *, stdin: str = "", files: Sequence[int] = (), log: Log = _nobody) -> bool:
    """Whether a program ends well, where both are an answer."""
    return outcome(argv, stdin=stdin, files=files, log=log)[1] == 0


@contextlib.contextmanager
def secret_file(text: str) -> Iterator[int]:
    """A descriptor to read a secret from: it lies in memory that no name leads to."""
    descriptor = os.memfd_create("secret", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _given(stdin: str) -> Iterator[int]:
    if not stdin:
        yield subprocess.DEVNULL
        return
    with secret_file(stdin) as descriptor:
        yield descriptor


def _wait(process: subprocess.Popen[bytes], watch: Watch | None) -> None:
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_WATCHED_EVERY if watch else None)
                return
            if watch:
                watch(process.pid)
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it with all that it started: it has a session of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + _GRACE
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def one_line(said: str) -> str:
    """All that a program said, as part of a sentence."""
    return " / ".join(said.split("\n")).strip(" /")


def _last_words(said: str) -> str:
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    return " / ".join(lines[-_LAST_LINES:]) or "it said nothing"
