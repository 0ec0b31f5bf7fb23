# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root: why the lab needs it, and how it gets it."""

from __future__ import annotations

import os
import shutil
import sys

from ..plugins.plugin_utils import apt
from .errors import HostError

WHY = "the lab makes network namespaces, mounts and containers, which only root may"
_KEPT = ("KOS_LAB_ID", apt.MIRROR, apt.SECURITY_MIRROR, "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", *apt.PROXIES)


def become_root() -> None:
    """Return as root: at once, or by running this same command again through sudo. Raises HostError without sudo."""
    if os.geteuid() == 0:
        os.umask(0o022)  # what is made for nodes has the modes of an ordinary root, not those of whoever calls
        return
    sudo = shutil.which("sudo")
    if sudo is None:
        raise HostError(f"root is needed: {WHY}. There is no sudo here; run this as root")
    print(f"Root is needed: {WHY}. Asking sudo.", file=sys.stderr, flush=True)
    again = [sudo, f"--preserve-env={','.join(_KEPT)}", sys.executable, *sys.orig_argv[1:]]
    os.execv(sudo, again)  # noqa: S606  (no shell is meant)
