# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program and give its output, or a LabError that says what it said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from .errors import LabError

# A user's PATH may lack the sbin folders, where ip, nft and sysctl live.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def run(argv: Sequence[str], stdin: str = "", environ: Mapping[str, str] | None = None) -> str:
    """The standard output of `argv`. Raises LabError, which carries the standard error."""
    done = attempt(argv, stdin, environ)
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or "it said nothing"
        raise LabError(f"`{' '.join(argv)}` failed ({done.returncode}): {said}")
    return done.stdout


def attempt(
    argv: Sequence[str], stdin: str = "", environ: Mapping[str, str] | None = None, files: Sequence[int] = ()
) -> subprocess.CompletedProcess[str]:
    """`argv` run to its end, whatever its end; it inherits `files`. Raises LabError where there is no such program."""
    environment = {**os.environ, "PATH": PATH, **(environ or {})}
    try:
        return subprocess.run(
            argv, input=stdin, capture_output=True, text=True, check=False, env=environment, pass_fds=files
        )
    except FileNotFoundError as error:
        raise LabError(f"there is no program `{argv[0]}` here; `kai lab doctor` says what is missing") from error
