# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab knows of this machine: one look at it, and one table of what that means."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..plugins.plugin_utils import apt
from ..plugins.plugin_utils.apt import AptConfiguration, NoMirror
from . import base_root, cgroup, kvm, qemu, vm_image
from .command import PATH, attempt
from .errors import HostError
from .identity import VAR
from .kvm import Verdict

# Debian package: a program or file by which one sees that it is there. `requirements/host.sh` installs what is not.
PACKAGES = {
    "debian-archive-keyring": apt.KEYRING,
    "iproute2": "ip",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "netcat-openbsd": "nc",
    "nftables": "nft",
    "openssh-client": "ssh",
    "procps": "sysctl",
    "slirp4netns": "slirp4netns",
    "systemd-container": "systemd-nspawn",
    "tar": "tar",
    "util-linux": "nsenter",
}
DEBIANS = ("12", "13")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
KERNEL = (5, 14)  # the first with cgroup.kill
FREE_MIB = 2048
# A disk that can be the upper side of an overlay: it keeps extended attributes and is no overlay itself.
BAD_DISKS = ("overlay", "overlayfs", "nfs", "nfs4", "vfat", "exfat", "fuse", "9p", "virtiofs", "aufs")


@dataclass(frozen=True)
class VmSurvey:
    """What there is for virtual nodes. Without an image, `qemu` (a version) and `image` are empty."""

    qemu: str
    image: str
    kvm: Verdict | None
    booted: bool


@dataclass(frozen=True)
class Survey:
    """What was seen. Sizes in MiB, ages in days; `apt` is None, and `apt_fault` says why, where apt names no mirror."""

    root: bool
    debian: str
    machine: str
    python: tuple[int, int]
    kernel: tuple[int, int]
    missing: tuple[str, ...]
    cgroup2: str | None
    hybrid: bool
    overlay: bool
    tun: bool
    disk: str
    free_mib: int
    memory_mib: int
    systemd: bool
    apt: AptConfiguration | None
    apt_fault: str
    roots: tuple[tuple[str, int], ...]
    vm: VmSurvey


@dataclass(frozen=True)
class Fact:
    """One thing about this machine. `ok` is None where it is only worth knowing; `fix` where it is False."""

    name: str
    value: str
    ok: bool | None
    means: str
    fix: str = ""


def survey() -> Survey:
    """Look at this machine. Changes nothing and needs no root."""
    mounted = cgroup.mount_point()
    configuration, apt_fault = _apt()
    folder = next(path for path in (VAR, *VAR.parents) if path.exists())
    return Survey(
        root=os.geteuid() == 0,
        debian=debian_release(Path("/etc/os-release").read_text()),
        machine=platform.machine(),
        python=sys.version_info[:2],
        kernel=kernel_version(os.uname().release),
        missing=missing_packages(),
        cgroup2=str(mounted) if mounted else None,
        hybrid=mounted is not None and mounted != Path("/sys/fs/cgroup"),
        overlay=_has_overlay(),
        tun=Path("/dev/net/tun").exists(),
        disk=attempt(["stat", "--file-system", "--format=%T", str(folder)]).stdout.strip(),
        free_mib=shutil.disk_usage(folder).free >> 20,
        memory_mib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        systemd=Path("/run/systemd/system").is_dir(),
        apt=configuration,
        apt_fault=apt_fault,
        roots=tuple((str(path), int((time.time() - path.stat().st_mtime) / 86400)) for path in base_root.cached()),
        vm=_vm(),
    )


def _vm() -> VmSurvey:
    """Of the newest image. What only root may look into counts as not there."""
    images = sorted(vm_image.cached(), key=lambda path: path.stat().st_mtime)
    if not images or not os.access(images[-1], os.X_OK):
        return VmSurvey("", "", None if kvm.DEVICE.exists() else kvm.remembered(Path()), False)
    image = images[-1]
    booted = any(vm_image.booted(image, accelerator).is_dir() for accelerator in (qemu.KVM, qemu.TCG))
    return VmSurvey(qemu.version(image), str(image), kvm.remembered(image), booted)


def debian_release(os_release: str) -> str:
    """`12`, `13`; what else a machine says it is, as it says it."""
    found = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', os_release, re.MULTILINE))
    if found.get("ID") == "debian":
        return str(found.get("VERSION_ID", "testing or unstable"))
    return str(found.get("PRETTY_NAME", found.get("ID", "unknown")))


def kernel_version(release: str) -> tuple[int, int]:
    """The first two numbers of a kernel's release."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def missing_packages() -> tuple[str, ...]:
    """The Debian packages that the lab needs and this machine lacks."""
    return tuple(
        package
        for package, sign in PACKAGES.items()
        if not (Path(sign).exists() if sign.startswith("/") else shutil.which(sign, path=PATH))
    )


def _has_overlay() -> bool:
    if "\toverlay\n" in Path("/proc/filesystems").read_text():
        return True
    return attempt(["modprobe", "--dry-run", "--quiet", "overlay"]).returncode == 0 if _has("modprobe") else False


def _has(program: str) -> bool:
    return shutil.which(program, path=PATH) is not None


def _apt() -> tuple[AptConfiguration | None, str]:
    try:
        return apt.inherit(), ""
    except NoMirror as error:
        return None, str(error)


def facts(seen: Survey) -> list[Fact]:
    """What was seen, what it means for the lab, and how to mend what is in the way."""
    return [*_system_facts(seen), *_kernel_facts(seen), *_storage_facts(seen), *_package_facts(seen), *_vm_facts(seen)]


def _system_facts(seen: Survey) -> list[Fact]:
    supported = seen.debian in DEBIANS
    return [
        Fact(
            "system",
            f"Debian {seen.debian}" if seen.debian[:1].isdigit() else seen.debian,
            supported,
            "the lab is tried on Debian 12 and 13 and refuses anything else",
            "" if supported else "run it on a Debian 12 or 13 machine; all of kOS but the lab works here",
        ),
        Fact(
            "architecture",
            ARCHITECTURES.get(seen.machine, seen.machine),
            seen.machine in ARCHITECTURES,
            "nodes run natively, and kOS is made for amd64 and arm64",
            "" if seen.machine in ARCHITECTURES else "use an amd64 or arm64 machine",
        ),
        Fact(
            "python",
            ".".join(map(str, seen.python)),
            seen.python >= (3, 11),
            "kOS needs 3.11 or newer",
            "" if seen.python >= (3, 11) else "make setup PYTHON=/path/to/python3.11",
        ),
        Fact("root", "yes" if seen.root else "no", None, "up, down, ssh and network need it; they ask sudo"),
        Fact("init", "systemd" if seen.systemd else "other", None, "the lab needs no systemd on this machine"),
    ]


def _kernel_facts(seen: Survey) -> list[Fact]:
    groups = f"{seen.cgroup2} (hybrid)" if seen.hybrid else str(seen.cgroup2)
    limits = "memory and CPU limits in nodes are not enforced: controllers are in version 1" if seen.hybrid else ""
    kernel_ok = seen.kernel >= KERNEL
    return [
        Fact(
            "kernel",
            ".".join(map(str, seen.kernel)),
            kernel_ok,
            "killing a whole control group needs 5.14",
            "" if kernel_ok else "boot the kernel of Debian 12 or newer",
        ),
        Fact(
            "control groups",
            groups if seen.cgroup2 else "version 1 only",
            seen.cgroup2 is not None,
            limits or "each node lives in a group of its own (version 2)",
            "" if seen.cgroup2 else "boot without systemd.unified_cgroup_hierarchy=0, or mount cgroup2",
        ),
        Fact(
            "overlay",
            "yes" if seen.overlay else "no",
            seen.overlay,
            "a node's disk is an overlay on the cached root",
            "" if seen.overlay else "use a kernel that has overlayfs (Debian's does)",
        ),
        Fact(
            "/dev/net/tun",
            "yes" if seen.tun else "no",
            seen.tun,
            "the lab's way out is a tap device",
            "" if seen.tun else "modprobe tun; in a container, pass /dev/net/tun in",
        ),
    ]


def _storage_facts(seen: Survey) -> list[Fact]:
    disk_ok = seen.disk not in BAD_DISKS
    space_ok = seen.free_mib >= FREE_MIB
    roots = ", ".join(f"{Path(path).name} ({days} days old)" for path, days in seen.roots)
    return [
        Fact(
            "disk",
            seen.disk,
            disk_ok,
            f"{VAR} holds the upper sides of overlays",
            "" if disk_ok else f"mount ext4, xfs, btrfs or tmpfs on {VAR}",
        ),
        Fact(
            "free space",
            f"{seen.free_mib} MiB",
            space_ok,
            f"a node and its packages want {FREE_MIB} MiB",
            "" if space_ok else f"free some space below {VAR.parent}",
        ),
        Fact("memory", f"{seen.memory_mib} MiB", None, "a bare node takes about 100 MiB"),
        Fact("cached root", roots or "none", None, "made once, half a minute; remove it to have a newer one"),
    ]


def _package_facts(seen: Survey) -> list[Fact]:
    return [
        Fact(
            "packages",
            f"missing: {', '.join(seen.missing)}" if seen.missing else "all there",
            not seen.missing,
            "the programs that the lab is made of",
            f"apt-get install {' '.join(seen.missing)}" if seen.missing else "",
        ),
        Fact(
            "apt mirror",
            seen.apt.mirror if seen.apt else "none",
            seen.apt is not None,
            "nodes inherit it, with apt's options",
            seen.apt_fault,
        ),
    ]


def _vm_facts(seen: Survey) -> list[Fact]:
    """Never in the way: nodes of the driver nspawn need none of it."""
    if ARCHITECTURES.get(seen.machine) != vm_image.ARCHITECTURE:
        means = f"virtual nodes are {vm_image.ARCHITECTURE} alone: what needs a kernel of its own is not shown here"
        return [Fact("vm", "no", None, means)]
    found = seen.vm
    made = "Debian 13's own, in a tree of the lab's: this machine's is never used (Debian 12's corrupts its guests)"
    verdict = found.kvm
    state = "not tried yet" if verdict is None else "usable" if verdict.usable else "not usable"
    why = verdict.why if verdict else "a kernel is started on it at the first `kai lab up NAME --driver vm`"
    slow = "; nodes are emulated, which shows the same, slower" if verdict and not verdict.usable else ""
    return [
        Fact("vm: qemu", f"{found.qemu} in {found.image}" if found.qemu else "not made yet", None, made),
        Fact("vm: /dev/kvm", state, None, why + slow),
        Fact(
            "vm: booted machine",
            "kept" if found.booted else "not made yet",
            None,
            "new nodes go on from it and need not boot; made at the first `kai lab up NAME --driver vm`",
        ),
        Fact(
            "nspawn: not shown",
            "clock, kernel.* sysctls, modules, LUKS, TPM" + (", enforced limits" if seen.hybrid else ""),
            None,
            "those nodes share this machine's kernel; a node made with --driver vm has its own",
        ),
        Fact(
            "vm: not shown",
            "real hardware, arm64, writes lost in a disk's cache",
            None,
            "`kai lab kill` takes the power from the machine, not from the disk: what was written stays",
        ),
    ]


def require(seen: Survey) -> AptConfiguration:
    """The way to packages on a machine where the lab can work.

    Raises HostError with every reason why it cannot, and what mends each.
    """
    wrong = [fact for fact in facts(seen) if fact.ok is False]
    if wrong or seen.apt is None:
        reasons = [f"{fact.name}: {fact.value} ({fact.means}). {_sentence(fact.fix)}" for fact in wrong]
        raise HostError("the lab cannot work on this machine:\n" + "\n".join(f"  - {reason}" for reason in reasons))
    return seen.apt


def _sentence(fix: str) -> str:
    return f"Mend it: {fix}" if fix else ""


def main(arguments: Sequence[str]) -> int:
    """`python3 -m ansible_collections.kind.kos.lab.host --packages`: the Debian packages, one a line."""
    if list(arguments) != ["--packages"]:
        print("usage: host --packages", file=sys.stderr)
        return 2
    print("\n".join(PACKAGES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
