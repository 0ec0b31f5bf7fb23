# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that builds: what it must have, and how a build becomes its root, or one of its own."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.kind.kos.plugins.plugin_utils import apt

from .errors import HostError, ImageError

if TYPE_CHECKING:
    from .definition import Architecture  # `make setup` runs this before pydantic is there

# Debian package: a program or file by which one sees that it is there. `requirements/host.sh` installs what is not.
PACKAGES = {
    "apt": "/usr/lib/apt/apt-helper",
    "debian-archive-keyring": apt.KEYRING,
    "dpkg": "dpkg-deb",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "openssl": "openssl",
    "tar": "tar",
    "uidmap": "newuidmap",
    "util-linux": "unshare",
}
DEBIANS = ("12", "13")
ARCHITECTURES: dict[str, Architecture] = {"x86_64": "amd64", "aarch64": "arm64"}
# The toolbox, a root tree and an image of each kind, and the packages that they are made of.
FREE_MIB = 4096
# A root tree and an initrd side by side, while they are made; with less, that is done on the disk.
MEMORY_MIB = 3072
# What Debian's trees use: user ids up to nobody's.
_IDS = 65535
_SUBIDS = (Path("/etc/subuid"), Path("/etc/subgid"))
_FIRST_ID = 100000  # of subordinate ids, where nothing else is set (login.defs, SUB_UID_MIN)
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# The kernel's word for an emulator is QEMU's own; Debian's packages bring the line that registers it. qemu-user-static
# leads to them on 12 and on 13, where it is qemu-user with qemu-user-binfmt; that of 12 works in no other tree.
_EMULATORS = {"arm64": "qemu-aarch64", "amd64": "qemu-x86_64"}
_REGISTRATIONS = Path("/usr/lib/binfmt.d")
_NAMESPACE = ("unshare", "--user", "--map-auto", "--map-root-user", "--")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class Survey:
    """What was seen. `namespace`: why an ordinary user gets none, empty where they do. Sizes in MiB."""

    debian: str
    machine: str
    missing: tuple[str, ...]
    root: bool
    namespace: str
    ids: int
    free_mib: int


def architecture() -> Architecture:
    """This machine's, in Debian's words. Raises HostError where kOS is not made for it."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise HostError(f"media are made on amd64 and arm64 machines, and this one is {machine}: use one of these")
    return ARCHITECTURES[machine]


def survey(cache: Path) -> Survey:
    """Look at this machine. Changes nothing and needs no root."""
    root = os.geteuid() == 0
    folder = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    return Survey(
        debian=debian_release(platform.freedesktop_os_release()),
        machine=platform.machine(),
        missing=missing_packages(),
        root=root,
        namespace="" if root else _refusal(),
        ids=mapped_ids(Path("/proc/self/uid_map").read_text()),
        free_mib=shutil.disk_usage(folder).free >> 20,
    )


def debian_release(os_release: Mapping[str, str]) -> str:
    """`12`, `13`; what else a machine says it is, as it says it."""
    if os_release.get("ID") == "debian":
        return os_release.get("VERSION_ID", "testing or unstable")
    return os_release.get("PRETTY_NAME", "unknown")


def missing_packages() -> tuple[str, ...]:
    """The Debian packages that a build needs and this machine lacks."""
    return tuple(
        package
        for package, sign in PACKAGES.items()
        if not (Path(sign).exists() if sign.startswith("/") else shutil.which(sign, path=_PATH))
    )


def mapped_ids(uid_map: str) -> int:
    """How many user ids this process may give files to."""
    return sum(int(line.split()[2]) for line in uid_map.splitlines())


def _refusal() -> str:
    """Why this user gets no namespace, by trying."""
    try:
        subprocess.run([*_NAMESPACE, "true"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", "") or error).strip()
    return ""


def faults(seen: Survey, cache: Path) -> Iterator[str]:
    """What is in the way of a build, each with its way out."""
    yield from _impossible(seen)
    if seen.free_mib < FREE_MIB:
        yield f"{cache} has {seen.free_mib} MiB, and a build wants {FREE_MIB}: free some, or set KOS_MEDIA_CACHE"


def _impossible(seen: Survey) -> Iterator[str]:
    """What no cache and no room would change."""
    if seen.debian not in DEBIANS:
        system = f"Debian {seen.debian}" if seen.debian[:1].isdigit() else seen.debian
        yield f"this is {system}: media are made on Debian 12 and 13"
    if seen.machine not in ARCHITECTURES:
        yield f"the machine is {seen.machine}: media are made on amd64 and arm64 machines"
    if seen.missing:
        yield f"packages are missing: apt-get install {' '.join(seen.missing)}"
    if seen.namespace:
        yield _no_namespace(seen.namespace)
    elif seen.root and seen.ids < _IDS:
        yield f"this root may use {seen.ids} user ids, and a Debian tree needs {_IDS}: leave the namespace around it"


def _no_namespace(why: str) -> str:
    user, ids = getpass.getuser(), _free_ids(_SUBIDS)
    return (
        f"{user} gets no user namespace ({why}): run this as root, or as root `apt-get install uidmap` and "
        f"`usermod --add-subuids {ids} --add-subgids {ids} {user}`"
    )


def _free_ids(files: Iterable[Path]) -> str:
    """A range of subordinate ids that nobody has, as usermod takes it: what follows the last one."""
    lines = [line.split(":") for file in files if file.exists() for line in file.read_text().splitlines()]
    first = max([_FIRST_ID, *(int(line[1]) + int(line[2]) for line in lines if len(line) == 3)])
    return f"{first}-{first + _IDS}"


def require(cache: Path, target: str | None = None) -> None:
    """Return where media can be made, those of architecture `target` too. Raises HostError with all that is in the way.

    What runs the programs of another architecture is registered with the kernel here, by root, and that is said.
    """
    wrong = list(faults(survey(cache), cache))
    if wrong:
        raise _refused(wrong)
    if target and target != architecture():
        _emulate(target)


def _refused(wrong: Iterable[str]) -> HostError:
    return HostError("media cannot be made on this machine:\n" + "\n".join(f"  - {fault}" for fault in wrong))


def enter() -> None:
    """Return as root: at once, or by running this same command again in a user namespace. Raises HostError."""
    if wrong := list(_impossible(survey(Path("/")))):
        raise _refused(wrong)
    if os.geteuid() == 0:
        return
    unshare = shutil.which(_NAMESPACE[0], path=_PATH) or _NAMESPACE[0]
    os.execv(unshare, [*_NAMESPACE, sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (no shell is meant)


def scratch(cache: Path) -> Path | None:
    """Where trees are unpacked: memory (None) is three times as fast, and a machine with little has a disk."""
    found = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    if int(found["MemAvailable"].split()[0]) >> 10 >= MEMORY_MIB:
        return None
    folder = cache / "stages"  # where the next build sweeps away what a killed one left
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _emulate(target: str) -> None:
    """Let the kernel run the programs of `target` in any tree. Raises HostError."""
    name = _EMULATORS[target]
    if _runs(name):
        return
    line = _REGISTRATIONS / f"{name}.conf"
    if not line.exists():
        raise HostError(f"nothing here runs programs of {target}: apt-get install qemu-user-static")
    try:
        if not (_BINFMT / "register").exists():
            subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)], check=True, capture_output=True)
        (_BINFMT / "register").write_text(line.read_text())
    except (OSError, subprocess.CalledProcessError) as error:
        raise HostError(
            f"the kernel does not know what runs programs of {target}, and only root may tell it: as root, "
            "`systemctl restart systemd-binfmt`, or run this once as root"
        ) from error
    if not _runs(name):
        raise ImageError(f"the kernel took {line} and does not obey it: see {_BINFMT / name}")
    print(f"Registered {name} with the kernel, as {line} has it: it runs programs of {target}.", file=sys.stderr)


def _runs(name: str) -> bool:
    """Whether the kernel has an emulator that it opened itself (F): one that works in trees that lack it."""
    try:
        said = (_BINFMT / name).read_text().splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2] for line in said if line.startswith("flags:")), "")
    return said[:1] == ["enabled"] and "F" in flags


def main(arguments: Sequence[str]) -> int:
    """`python3 -m kos_image.host --packages`: the Debian packages, one a line."""
    if list(arguments) != ["--packages"]:
        print("usage: host --packages", file=sys.stderr)
        return 2
    print("\n".join(PACKAGES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
