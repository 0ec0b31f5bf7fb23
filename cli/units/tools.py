# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Call a program that builds, pushes or signs, and say clearly what it lacks or what it said."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

# The Debian package of each program that is not on every controller.
_PACKAGES = {"mmdebstrap": "mmdebstrap", "skopeo": "skopeo", "cosign": "cosign", "dpkg-deb": "dpkg", "apt-get": "apt"}


class ToolFailed(Exception):
    """A program is missing or refused; the text is one sentence for a person."""


def run(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """The output of `argv`. Raises ToolFailed with the last lines of what it said."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)
    except FileNotFoundError as error:
        package = _PACKAGES.get(argv[0], argv[0])
        raise ToolFailed(f"{argv[0]} is not installed on this controller: apt install {package}") from error
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-6:])
        raise ToolFailed(f"{argv[0]} failed: {said}")
    return done.stdout
