# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cached Debian 13 root under every node: made once by mmdebstrap, read-only ever after."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from . import cgroup, state
from .apt import AptConfiguration
from .command import attempt, run
from .errors import LabError
from .identity import CACHE, Lab

SUITE = "trixie"
# A fresh Debian 13 server: Debian's `important` packages and what the installer adds to make it reachable.
VARIANT = "important"
PACKAGES = (
    "ca-certificates",
    "dbus",
    "libpam-systemd",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
)
# Raise it when `_finish` changes: it is part of the key.
RECIPE = 1
KEPT_SECONDS = 86400

Say = Callable[[str], None]


def ensure(lab: Lab, apt: AptConfiguration, say: Say) -> Path:
    """The root for this configuration, made now if need be. Raises LabError."""
    entry = CACHE / f"{SUITE}-{key(apt, architecture())}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        _wait_for(lock.fileno(), say)
        _sweep()
        if not entry.is_dir():
            say("making the Debian 13 root, once (about half a minute)")
            _make(lab, apt, entry, lock.fileno())
        (entry / "used").touch()
        _prune()
    return entry / "root"


def architecture() -> str:
    """This machine's, in Debian's words."""
    return run(["dpkg", "--print-architecture"]).strip()


def key(apt: AptConfiguration, arch: str) -> str:
    """What makes two roots equal: packages, the way to them, architecture, recipe."""
    parts = [RECIPE, SUITE, VARIANT, PACKAGES, arch, asdict(apt)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def cached() -> list[Path]:
    """The folders of the roots in the cache; the time of each is when it was made."""
    return sorted(CACHE.glob(f"{SUITE}-*"))


def sweep() -> None:
    """Remove what a killed `ensure` left, unless one is at work."""
    if not (CACHE / "lock").exists():
        return
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _sweep()


def _wait_for(lock: int, say: Say) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another lab is making a Debian 13 root; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _sweep() -> None:
    for path in CACHE.glob("building-*"):
        shutil.rmtree(path)


def _prune() -> None:
    """Remove roots that no node stands on and nobody asked for lately: another lab may be about to."""
    in_use = state.roots_in_use()
    for entry in cached():
        unasked = time.time() - (entry / "used").stat().st_mtime
        if unasked > KEPT_SECONDS and str(entry / "root") not in in_use:
            shutil.rmtree(entry)


def _make(lab: Lab, apt: AptConfiguration, entry: Path, lock: int) -> None:
    building = CACHE / f"building-{entry.name}"
    tree, options, sources = building / "root", building / "apt.conf", building / "debian.sources"
    building.mkdir()
    options.write_text("\n".join(apt.options) + "\n")
    sources.write_text(apt.sources(SUITE))
    command = ["mmdebstrap", "--mode=root", f"--variant={VARIANT}", f"--include={','.join(PACKAGES)}"]
    command += [f"--aptopt={options}", '--customize-hook=chroot "$1" systemctl --quiet enable systemd-networkd']
    # In mounts and a control group of its own: killed half-way it leaves neither mount nor process. It holds the lock
    # too: where only we are killed, nobody sweeps or builds under its feet.
    group = cgroup.make(f"{lab.cgroup}/build")
    private = ["unshare", "--mount", "--propagation", "slave"]
    done = attempt(cgroup.inside(group, [*private, *command, SUITE, str(tree), str(sources)]), files=[lock])
    if done.returncode:
        shutil.rmtree(building)
        raise LabError("mmdebstrap failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))
    _finish(tree, apt)
    options.unlink()
    sources.unlink()
    (building / "used").touch()
    building.chmod(0o700)  # its set-user-ID programs are not for the users of this machine
    os.rename(building, entry)
    cgroup.remove(f"{lab.cgroup}/build")


def _finish(root: Path, apt: AptConfiguration) -> None:
    """What the installer would have written, and nothing that two machines must not share."""
    configured = root / "etc/apt/apt.conf.d"
    (configured / "99mmdebstrap").unlink(missing_ok=True)
    (configured / "80inherited").write_text("".join(f"{line}\n" for line in apt.options))
    for file in apt.files:
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    for listed in (root / "etc/apt/sources.list.d").iterdir():
        listed.unlink()
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    (root / "etc/apt/sources.list.d/debian.sources").write_text(apt.sources(SUITE))
    for host_key in (root / "etc/ssh").glob("ssh_host_*"):
        host_key.unlink()
    (root / "etc/locale.conf").write_text("LANG=C.UTF-8\n")
    for own in ("etc/machine-id", "etc/hostname", "etc/resolv.conf"):
        (root / own).unlink(missing_ok=True)
