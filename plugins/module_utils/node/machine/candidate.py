# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A candidate: a snapshot of the running root, whose packages are upgraded while it is not what runs.

Data below /var are the machine's own there too: what a package's maintainer script changes in them is not taken back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .. import files, system
from ..files import Busy, NodeError, Root
from ..system import Source
from . import layout, system_layout
from .layout import CANDIDATE, TOP, Layout

# As many bytes as an upgrade of the base system takes, with its kernel and a build of its initrd.
_ROOM = 2 * 2**30
_APT = ["apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confdef"]
_APT += [
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "Dpkg::Use-Pty=0",
    "-o",
    "APT::Get::Show-User-Simulation-Note=0",
]
# Debian's hooks of the kernel make no initrd then (it is made once, afterwards), and ours no boot entry.
_ENVIRONMENT = ["env", "INITRD=No", "KOS_CANDIDATE=1"]
_SCRATCH = "/tmp"  # noqa: S108 -- of the candidate, in memory
_POLICY = "/usr/sbin/policy-rc.d"
_NO_SERVICE = b"#!/bin/sh\n# Nothing is started in a system that does not run.\nexit 101\n"
# What people change in a root by hand; the rest of it is packages', whose list is looked at, or data's below /var.
_OF_PERSONS = ("/etc", "/opt", "/root/.ssh", "/srv", "/usr/local")
# These change by themselves (hwclock(8), systemd-resolved(8), systemd-update-done(8)).
_BY_ITSELF = ("/etc/adjtime", "/etc/resolv.conf", "/etc/.updated")
_SUBVOLUME = re.compile(r"subvol=/?@root\.\d+")


class UpgradeRefused(NodeError):
    """The packages cannot be upgraded, or not without losing one."""


@dataclass(frozen=True)
class Upgraded:
    """What a candidate became: the packages that were exchanged, the kernel's version, the files to boot it."""

    packages: list[str]
    version: str
    kernel: str
    initrd: str


def path(number: int) -> str:
    """Where the root subvolume `number` lies."""
    return os.path.join(TOP, system_layout.ROOT_SLOT.format(number=number))


def snapshot(source: int, number: int) -> None:
    """Make the root subvolume `number` of the running one, while no package is half installed in it.

    Raises Busy, NodeError, OSError.
    """
    space = os.statvfs(TOP)
    if space.f_bavail * space.f_frsize < _ROOM:
        free = space.f_bavail * space.f_frsize >> 20
        raise UpgradeRefused(f"the disk has {free} MiB free, an update of the system needs {_ROOM >> 20}: free some")
    with _no_dpkg():
        os.sync()
        system.run(["btrfs", "subvolume", "snapshot", path(source), path(number)])


@contextlib.contextmanager
def _no_dpkg() -> Iterator[None]:
    with open("/var/lib/dpkg/lock-frontend", "w", encoding="ascii") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy("apt or dpkg is at work on this machine: wait for it to end, then run again") from error
        yield


def delete(number: int) -> None:
    """Remove the root subvolume `number`; nothing to do when it is not there. Raises CommandFailed."""
    if os.path.isdir(path(number)):
        system.run(["btrfs", "subvolume", "delete", "--commit-after", path(number)])


def fingerprint(root: Root) -> str:
    """What a snapshot is taken of: it tells whether the running root has changed since, by whomever."""
    state = hashlib.sha256(files.read(root.join("/var/lib/dpkg/status")) or b"")
    with contextlib.suppress(OSError):
        state.update(os.readlink(root.state("current")).encode())
    state.update(files.read(root.state("history")) or b"")
    for place in _OF_PERSONS:
        for line in _listed(root, place):
            state.update(line.encode(errors="surrogateescape"))
    return state.hexdigest()


def _listed(root: Root, place: str) -> Iterator[str]:
    """A line for each file and link below a folder, which changes when it does. Raises OSError."""
    for folder, folders, names in os.walk(root.join(place)):
        folders.sort()
        for name in sorted((*names, *(one for one in folders if os.path.islink(os.path.join(folder, one))))):
            path = os.path.join(folder, name)
            shown = "/" + os.path.relpath(path, root.path)
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(path)
                if shown not in _BY_ITSELF:
                    yield f"{shown} {found.st_mode} {found.st_uid} {found.st_gid} {found.st_size} {found.st_mtime_ns}\n"


@contextlib.contextmanager
def entered(here: Layout, number: int) -> Iterator[None]:
    """Mount candidate `number` with all that a package may look for; in mounts of this process alone.

    Raises CommandFailed.
    """
    os.makedirs(CANDIDATE, mode=0o700, exist_ok=True)
    subvolume = system_layout.ROOT_SLOT.format(number=number)
    system.run(["mount", "-t", "btrfs", "-o", f"subvol={subvolume}", here.device, CANDIDATE])
    try:
        for source, target in _binds():
            os.makedirs(CANDIDATE + target, exist_ok=True)
            # Not with what is mounted below: the running root's own dpkg is.
            system.run(["mount", "--bind", source, CANDIDATE + target])
        yield
    finally:
        system.run(["umount", "--recursive", "--lazy", CANDIDATE])


def _binds() -> Iterator[tuple[str, str]]:
    yield "/var", "/var"
    yield "/var/log", "/var/log"
    for name, place in system_layout.BOUND.items():
        yield f"{CANDIDATE}{system_layout.SYSIMAGE}/{name}", place
    for place in ("/dev", "/dev/pts", "/sys"):
        yield place, place
    system.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", f"{CANDIDATE}/run"])
    system.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", CANDIDATE + _SCRATCH])
    # Names are resolved by the running system; nothing else of its /run is seen, so no service of it is restarted.
    if os.path.isdir("/run/systemd/resolve"):
        yield "/run/systemd/resolve", "/run/systemd/resolve"


def inside(argv: Sequence[str], check: bool = True) -> str:
    """The output of a command in the entered candidate; whatever it starts ends with it. Raises CommandFailed."""
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "private"]
    line = [*apart, f"--mount-proc={CANDIDATE}/proc", "chroot", CANDIDATE, *_ENVIRONMENT, *argv]
    return system.run(line, check=check).stdout.decode(errors="replace")


def upgrade(number: int, source: Source) -> Upgraded:
    """Bring the entered candidate's packages up to date, and make what boots it. Raises NodeError, OSError."""
    with _policy():
        inside([*_APT, *source.options, "update"])
        planned = inside([*_APT, *source.options, "--simulate", "full-upgrade"]).splitlines()
        names = sorted({line.split()[1] for line in planned if line.startswith("Inst ")})
        lost = sorted({line.split()[1] for line in planned if line.startswith("Remv ")})
        if lost:
            raise UpgradeRefused(
                f"the upgrade would remove {', '.join(lost)}: look at it with apt, nothing was changed"
            )
        if names:
            inside([*_APT, *source.options, "full-upgrade"])
            inside(["dpkg", "--configure", "-a"])
    return as_it_is(number, names)


def as_it_is(number: int, exchanged: Sequence[str] = ()) -> Upgraded:
    """What boots the entered candidate; its initrd is made anew where one of the packages `exchanged` is part of it.

    Raises NodeError, OSError.
    """
    _renumber(number)
    version = _newest_kernel()
    kernel, initrd = f"/boot/vmlinuz-{version}", f"/boot/initrd.img-{version}"
    if not os.path.exists(CANDIDATE + initrd) or _touched(initrd, exchanged):
        inside(["dracut", "--quiet", "--force", initrd, version])
    system.run(["btrfs", "filesystem", "sync", CANDIDATE])
    return Upgraded(list(exchanged), version, CANDIDATE + kernel, CANDIDATE + initrd)


@contextlib.contextmanager
def _policy() -> Iterator[None]:
    files.write(CANDIDATE + _POLICY, _NO_SERVICE, 0o755)
    try:
        yield
    finally:
        files.remove(CANDIDATE + _POLICY)


def _renumber(number: int) -> None:
    """Where the candidate's own files name its subvolume they must name the right one."""
    for name in ("/etc/fstab", layout.ARGUMENTS):
        content = files.read(CANDIDATE + name)
        if content is not None:
            wanted = "subvol=" + system_layout.ROOT_SLOT.format(number=number)
            mode = os.stat(CANDIDATE + name).st_mode & 0o777
            files.write(CANDIDATE + name, _SUBVOLUME.sub(wanted, content.decode()).encode(), mode)


def _newest_kernel() -> str:
    versions = inside(["sh", "-c", "linux-version list | linux-version sort"]).split()
    if not versions:
        raise UpgradeRefused("the upgraded system has no kernel: look at it with apt, nothing was changed")
    return versions[-1]


def _touched(initrd: str, packages: Sequence[str]) -> bool:
    """Whether a file of the initrd comes from one of the packages that were exchanged."""
    if not packages:
        return False
    listed = (line.split(" -> ")[0] for line in inside(["lsinitrd", initrd]).splitlines())
    held = {_merged(line.split()[-1]) for line in listed if "/" in line}
    owned = inside(["dpkg-query", "--listfiles", *packages]).splitlines()
    return any(_merged(name) in held for name in owned if not os.path.isdir(CANDIDATE + name))


def _merged(name: str) -> str:
    """A path as it is since /usr was merged."""
    name = name.lstrip("/")
    return f"usr/{name}" if name.startswith(("bin/", "sbin/", "lib/", "lib64/")) else name


def forget_cache() -> None:
    """Give back the space of package files that were downloaded for an upgrade."""
    folder = "/var/cache/apt/archives"
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.endswith(".deb"):
            files.remove(os.path.join(folder, name))
    shutil.rmtree(os.path.join(folder, "partial"), ignore_errors=True)
