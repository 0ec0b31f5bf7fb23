# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether /dev/kvm runs anything: found out by starting a kernel, or UEFI, on it, once a boot of this machine."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from . import cgroup, qemu
from .identity import Lab

DEVICE = Path("/dev/kvm")
_SECONDS = 8.0
_STARTED = {"Linux version": "a kernel started on it", "BdsDxe": "UEFI started on it"}


@dataclass(frozen=True)
class Verdict:
    """What became of a kernel started on /dev/kvm. `boot` is the boot of this machine at which that was so."""

    usable: bool
    why: str
    boot: str = ""


def verdict(lab: Lab, image: Path) -> Verdict:
    """The verdict on this machine, from a trial now unless there was one since it booted."""
    known = remembered(image)
    if known is None:
        known = _try(lab, image)
        (image / "kvm.json").write_text(json.dumps(asdict(known)) + "\n")
    return known


def remembered(image: Path) -> Verdict | None:
    """The verdict of the last trial; None where there was none since this machine booted."""
    if not DEVICE.exists():
        return Verdict(False, "there is no /dev/kvm here", _boot())
    try:
        known = Verdict(**json.loads((image / "kvm.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return known if known.boot == _boot() else None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _try(lab: Lab, image: Path) -> Verdict:
    group = f"{lab.cgroup}/probe"
    line = qemu.command(image, image, image, "qemu-system-x86_64", qemu.probe_arguments((image / "vmlinuz").exists()))
    output, ended = "", True
    try:
        done = subprocess.run(
            cgroup.inside(cgroup.make(group), line),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_SECONDS, check=False,
        )  # fmt: skip
        output = done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as expired:
        output, ended = (expired.stdout or b"").decode(errors="replace"), False
    finally:
        cgroup.remove(group)
    usable, why = judge(output, ended)
    return Verdict(usable, why, _boot())


def judge(output: str, ended: bool) -> tuple[bool, str]:
    """What a trial's output means, and whether it ended by itself: whether /dev/kvm is usable, and why (not)."""
    started = next((why for sign, why in _STARTED.items() if sign in output), None)
    if started:
        return True, started
    if not ended:
        return False, f"/dev/kvm opens, but a kernel started on it says nothing within {_SECONDS:.0f} s"
    said = [line.strip() for line in output.splitlines() if line.strip()]
    return False, f"a kernel does not start on /dev/kvm: {said[-1] if said else 'QEMU ended without a word'}"
