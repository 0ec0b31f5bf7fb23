# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hardware facts of this machine, as one small document."""

from __future__ import annotations

import glob
import os
import platform
from typing import Any

from . import files
from .files import Root
from .join import memory_mb

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_GPU_VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
# Matrox and ASPEED are the consoles of servers; no model runs on them.
_DISPLAY_CLASSES = ("0x0300", "0x0302")
# systemd leaves it where it finds itself in a container.
_CONTAINER = "/run/systemd/container"


def facts(root: Root | None = None) -> dict[str, Any]:
    """Operating system, architecture, cores, memory (MB), disk (GB), GPUs, link speed (Mbit/s), encryption, kernel."""
    root = root or Root()
    release = _os_release(root)
    return {
        "os": {"id": release.get("ID", "unknown"), "version": release.get("VERSION_ID", "")},
        "architecture": architecture(),
        "cpu": len(os.sched_getaffinity(0)),
        "memory_mb": memory_mb(),
        "disk_gb": _disk_gb(root.join("/var/lib")),
        "gpus": _gpus(),
        "network_mbps": _network_mbps(),
        "disk_encrypted": _encrypted(root.join("/var/lib")),
        "shares_kernel": os.path.exists(_CONTAINER),
    }


def architecture() -> str:
    """This machine's, in Debian's words where kOS knows it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _os_release(root: Root) -> dict[str, str]:
    # etc/os-release is a link that leaves the root when followed from outside it.
    text = (files.read(root.join("/usr/lib/os-release")) or b"").decode()
    rows = (line.partition("=") for line in text.splitlines())
    return {key: value.strip('"') for key, _equals, value in rows}


def _disk_gb(path: str) -> int:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize // 10**9


def _gpus() -> list[str]:
    found = []
    for device in sorted(glob.glob("/sys/bus/pci/devices/*")):
        kind, vendor = _line(f"{device}/class"), _line(f"{device}/vendor")
        if kind.startswith(_DISPLAY_CLASSES) and vendor in _GPU_VENDORS:
            found.append(_GPU_VENDORS[vendor])
    return found


def _network_mbps() -> int | None:
    speeds = [_line(path) for path in glob.glob("/sys/class/net/*/speed")]
    numbers = [int(speed) for speed in speeds if speed.isdecimal()]
    return max(numbers) if numbers else None


def _line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.readline().strip()
    except OSError:
        return ""


def _encrypted(path: str) -> bool:
    """Whether the block device under `path`, or one it is built on, is a dm-crypt mapping."""
    number = device(path)
    waiting = [f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"]
    while waiting:
        place = waiting.pop()
        if _line(f"{place}/dm/uuid").startswith("CRYPT-"):
            return True
        waiting += glob.glob(f"{place}/slaves/*")
    return False


def device(path: str) -> int:
    """The number of the block device that holds `path`; btrfs hides it behind anonymous ones, one a subvolume."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    number = os.stat(path).st_dev
    if os.major(number):
        return number
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        source = mounted(os.path.realpath(path), stream.read())
    return _named(source) or number


def _named(source: str) -> int:
    """The number of a block device, 0 of anything else; from /sys, as in a sandbox there is no /dev of the machine."""
    place = f"/sys/class/block/{os.path.basename(source)}"
    if source.startswith("/dev/mapper/"):
        names = {_line(f"{each}/dm/name"): each for each in glob.glob("/sys/class/block/dm-*")}
        place = names.get(os.path.basename(source), "")
    major, _colon, minor = _line(f"{place}/dev").partition(":")
    return os.makedev(int(major), int(minor)) if minor else 0


def mounted(path: str, mountinfo: str) -> str:
    """What is mounted where the absolute `path` lies, by the kernel's table; of two at one place it is the later."""
    found = ("", "")
    for line in mountinfo.splitlines():
        row = line.split()
        point = row[4].replace("\\040", " ")
        if len(point) >= len(found[0]) and f"{path}/".startswith(f"{point.rstrip('/')}/"):
            found = (point, row[row.index("-") + 2])
    return found[1]
