# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program of this machine and give its output, or an ImageError that says what it said."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from .errors import HostError, ImageError

LAST_LINES = 15


def run(argv: Sequence[str], environ: Mapping[str, str] | None = None, name: str = "") -> str:
    """The standard output of `argv`, which errors call `name`. Raises ImageError with the last of what it said."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=environ,
            umask=0o022,  # what is made has the modes of an ordinary root, not those of whoever calls
        )
    except FileNotFoundError as error:
        raise HostError(f"there is no program `{argv[0]}` here; `make setup` installs what is missing") from error
    if done.returncode:
        said = last_words(done.stderr or done.stdout)
        raise ImageError(f"{name or argv[0]} failed ({done.returncode}): {said}")
    return done.stdout


def last_words(said: str) -> str:
    """The end of what a program printed."""
    return "\n".join(said.strip().splitlines()[-LAST_LINES:]) or "it said nothing"
