# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU: which one, with which arguments, and how it is started.

It is Debian 13's own, in a tree of the lab's, on any host: Debian 12's corrupts its guests. It runs in that tree, in
mounts, a control group and a network given by the caller, and sees three folders: the cached image it may only read
(IMAGE), its disk (DISK) and its run files (RUN).
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import cgroup
from .command import PATH

PACKAGES = ("e2fsprogs", "qemu-system-x86", "qemu-utils")
IMAGE, DISK, RUN = "/image", "/disk", "/run/node"
TREE = "tools"  # of the image's folder
SPARE = "spare.raw"  # of the node's

KVM, TCG = "kvm", "tcg"
_MEMORY_MIB = 2048
_PROCESSORS = 2
# TCG emulates each instruction: newer models cost a third more, because guests then use the vector instructions.
# Debian's baseline is older than this one, and all that kOS installs asks for no more. AMD's, since on
# Intel's (Meltdown) Linux changes page tables at each system call, for which the emulator throws its own away.
MODELS = {KVM: "host", TCG: "Westmere,vendor=AuthenticAMD"}
ACCELERATORS = {KVM: "kvm", TCG: "tcg,thread=multi,tb-size=512"}

# What is needed to start, and what spares a slow machine seconds: no mitigations of processors that are not there, no
# drivers of devices that are not there, a clock that is not calibrated, and time for a busy host.
_KERNEL = (
    "root=/dev/vda ro console=ttyS0 loglevel=4 panic=-1 mitigations=off tsc=reliable systemd.show_status=no "
    "modprobe.blacklist=bochs,kvm_amd,kvm_intel,iTCO_wdt,ccp systemd.default_device_timeout_sec=300"
)
_SCRIPT = Path(__file__).with_name("boot-vm.sh")


@dataclass(frozen=True)
class Machine:
    """One virtual machine. `tap` is an interface of its network; without one it gets an unconnected one of its own.

    `memory` is the file it goes on from; without one it boots. `spare`: whether it has an empty disk more; `usb`:
    whether it has ports.
    """

    accelerator: str
    mac: str
    tap: str | None = None
    memory: str | None = None
    spare: bool = False
    usb: bool = False


def arguments(machine: Machine) -> list[str]:
    """The arguments of QEMU; paths are those that it sees."""
    tap = f"ifname={machine.tap}," if machine.tap else ""
    parts = [
        "-nodefaults -no-user-config -display none -machine q35",
        f"-accel {ACCELERATORS[machine.accelerator]} -cpu {MODELS[machine.accelerator]}",
        f"-smp {_PROCESSORS} -m {_MEMORY_MIB} -rtc base=utc,clock=host",
        "-sandbox on,obsolete=deny,spawn=deny,resourcecontrol=deny",
        f"-kernel {IMAGE}/vmlinuz -initrd {RUN}/initrd",
        f"-drive if=none,id=disk,format=qcow2,file={DISK}/disk.qcow2,discard=unmap",
        "-device virtio-blk-pci,drive=disk",
        f"-netdev tap,id=net,{tap}script=no,downscript=no",
        f"-device virtio-net-pci,netdev=net,mac={machine.mac},romfile=",
        "-device virtio-rng-pci -device vmgenid,guid=auto",
        f"-chardev socket,id=identity,path={RUN}/identity.sock,server=on,wait=off",
        "-device virtio-serial-pci -device virtserialport,chardev=identity,name=kos.identity",
        f"-chardev file,id=console,path={RUN}/console.log,append=on -serial chardev:console",
        f"-qmp unix:{RUN}/qmp.sock,server=on,wait=off",
    ]
    if machine.spare:
        parts += [
            f"-drive if=none,id=spare,format=raw,file={DISK}/{SPARE},discard=unmap",
            "-device virtio-blk-pci,drive=spare,serial=spare",
        ]
    if machine.usb:
        parts.append("-device qemu-xhci,id=usb")
    line = [word for part in parts for word in part.split()] + ["-append", _KERNEL]
    return [*line, "-incoming", f"file:{machine.memory}"] if machine.memory else line


def probe_arguments(kernel: bool = True) -> list[str]:
    """The arguments with which QEMU starts a kernel on /dev/kvm that has nothing to run, and so soon ends.

    A tree without a `kernel` has UEFI, which says on the serial port that it found nothing to boot.
    """
    bare = "-nodefaults -no-user-config -display none -no-reboot -serial stdio -machine q35 -m 256 -accel kvm -cpu host"
    if not kernel:
        return f"{bare} -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd".split()
    return [*f"{bare} -kernel {IMAGE}/vmlinuz -append".split(), "console=ttyS0 panic=-1"]


def disk_arguments(backing: str) -> list[str]:
    """The arguments with which qemu-img makes a disk that keeps only what differs from another."""
    kind = "qcow2" if backing.endswith(".qcow2") else "raw"
    return ["create", "-q", "-f", "qcow2", "-b", backing, "-F", kind, f"{DISK}/disk.qcow2"]


def version(image: Path) -> str:
    """Of the QEMU in the tree, as Debian counts; empty where there is none."""
    try:
        status = (image / TREE / "var/lib/dpkg/status").read_text()
    except OSError:
        return ""
    stanza = next((part for part in status.split("\n\n") if part.startswith("Package: qemu-system-x86\n")), "")
    return next((line.removeprefix("Version: ") for line in stanza.splitlines() if line.startswith("Version: ")), "")


def command(image: Path, disk: Path, run: Path, program: str, argv: list[str]) -> list[str]:
    """The command line that runs a program of the tree, which sees the three folders."""
    private = ["unshare", "--mount", "--propagation", "slave", "sh", str(_SCRIPT)]
    return [*private, str(image / TREE), str(image), str(disk), str(run), program, *argv]


def spawn(group: str, argv: list[str], log: Path) -> None:
    """Start a command line in a control group and away from our session: it outlives this command, and Ctrl-C of it."""
    with log.open("ab") as output:
        subprocess.run(
            cgroup.inside(cgroup.make(group), ["setsid", "--fork", *argv]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PATH": PATH},
            check=True,
        )


def mac(address: str) -> str:
    """The hardware address that follows from a node's IPv4 address."""
    return "52:54:00:" + ":".join(f"{int(part):02x}" for part in address.split(".")[1:])
