# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines that media are booted on, as arguments of QEMU. Pure.

Paths are those that QEMU sees: its run files in RUN, the medium and a seed beside that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import qemu
from .errors import UsageError
from .medium import ARM64, Medium

RUN = "/run/medium"
MEDIUM, SEED, OVERLAY = "/run/image", "/run/seed", f"{RUN}/overlay.qcow2"
# What the machine itself remembers between boots, where it has a folder for that.
STATE = "/run/state"
VARIABLES, TPM, TPM_SOCKET = "variables.fd", "tpm", "tpm.sock"
MONITOR = "qmp.sock"
PC, VIRT, RASPI3B = "pc", "virt", "raspi3b"
BIOS, UEFI, SECURE_BOOT = "bios", "uefi", "secure-boot"
MICROSOFT, SETUP = "microsoft", "setup"
MACHINES = (PC, VIRT, RASPI3B)
FIRMWARES = (BIOS, UEFI, SECURE_BOOT)
PROGRAMS = {PC: "qemu-system-x86_64", VIRT: "qemu-system-aarch64", RASPI3B: "qemu-system-aarch64"}

_OVMF, _AAVMF = "/usr/share/OVMF", "/usr/share/AAVMF"
# Code of the firmware, its factory variables (setup mode: no key is enrolled), and those that computers are sold with.
FIRMWARE_FILES = {
    (PC, UEFI): (f"{_OVMF}/OVMF_CODE_4M.fd", f"{_OVMF}/OVMF_VARS_4M.fd", f"{_OVMF}/OVMF_VARS_4M.ms.fd"),
    (PC, SECURE_BOOT): (f"{_OVMF}/OVMF_CODE_4M.secboot.fd", f"{_OVMF}/OVMF_VARS_4M.fd", f"{_OVMF}/OVMF_VARS_4M.ms.fd"),
    (VIRT, UEFI): (f"{_AAVMF}/AAVMF_CODE.no-secboot.fd", f"{_AAVMF}/AAVMF_VARS.fd", f"{_AAVMF}/AAVMF_VARS.ms.fd"),
    (VIRT, SECURE_BOOT): (f"{_AAVMF}/AAVMF_CODE.secboot.fd", f"{_AAVMF}/AAVMF_VARS.fd", f"{_AAVMF}/AAVMF_VARS.ms.fd"),
}
_FEW = 2  # processors: more help little while a medium boots
_LONGEST_SERIAL = 20  # of a virtio disk
_MINIMUM_MIB = {PC: 512, VIRT: 512, RASPI3B: 1024}
_SANDBOX = "-sandbox on,obsolete=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class Disk:
    """A disk of the machine beside the medium, as it lies in a file (raw); `serial` has at most 20 characters.

    In a `log` every write and every flush is recorded, in their order (QEMU's blklogwrites).
    """

    path: Path
    serial: str
    log: Path | None = None


@dataclass(frozen=True)
class Boot:
    """How a medium is booted.

    `machine` and `usb` follow from the medium where they are not given. `variables` are those of UEFI: MICROSOFT,
    SETUP, or a file; with a `certificate` they are made to trust that alone. `persist` lets the machine write on the
    medium itself. `size` (bytes) is that of the stick it lies on. `ssh` is a port of this machine that leads to the
    machine's 22; without it there is no network. `memory` in MiB. `disks` are the machine's own, written to; with
    `from_disk` the first of them comes before the medium. `state` is a folder for what the machine remembers: UEFI's
    variables, made of `variables` the first time, and its `tpm`.
    """

    firmware: str = UEFI
    machine: str = ""
    usb: bool | None = None
    variables: str = MICROSOFT
    certificate: Path | None = None
    seed: Path | None = None
    persist: bool = False
    size: int | None = None
    credentials: Mapping[str, str] = field(default_factory=dict)
    ssh: int | None = None
    memory: int = 2048
    restart: bool = True
    disks: tuple[Disk, ...] = ()
    from_disk: bool = False
    state: Path | None = None
    tpm: bool = False


def machine_for(medium: Medium, boot: Boot) -> str:
    """The machine that a medium is for. Raises UsageError where that and what was asked for do not fit."""
    fits = (RASPI3B, VIRT) if medium.card is not None else (VIRT,) if medium.architecture == ARM64 else (PC,)
    machine = boot.machine or fits[0]
    if machine not in fits:
        raise UsageError(f"{medium.path.name} is for {' or '.join(fits)}, not for {machine}")
    if machine != PC and boot.firmware == BIOS:
        raise UsageError(f"a machine {machine} has no BIOS; leave --firmware away")
    if machine == RASPI3B and (boot.firmware == SECURE_BOOT or boot.credentials or boot.seed):
        raise UsageError("a Raspberry Pi has no Secure Boot, and this one no credentials or second disk")
    if machine == RASPI3B and (boot.disks or boot.tpm):
        raise UsageError("a Raspberry Pi has its card, and neither another disk nor a TPM here")
    if boot.tpm and boot.state is None:
        raise UsageError("a TPM needs a folder for what it remembers; name a disk with --disk")
    if boot.from_disk and not boot.disks:
        raise UsageError("there is no disk to boot from; name one with --disk")
    if any(not 0 < len(disk.serial) <= _LONGEST_SERIAL or "," in disk.serial for disk in boot.disks):
        raise UsageError(f"a disk's serial number has 1 to {_LONGEST_SERIAL} characters, and no comma")
    if boot.memory < _MINIMUM_MIB[machine]:
        raise UsageError(f"a machine {machine} needs --memory {_MINIMUM_MIB[machine]} or more (MiB)")
    return machine


def arguments(medium: Medium, boot: Boot, machine: str, accelerator: str, kernel: str = "") -> list[str]:
    """The arguments of QEMU for a medium that `machine_for` has judged. A Pi takes the command line of its `kernel`."""
    parts = [
        f"-nodefaults -no-user-config -display none {_SANDBOX}",
        f"-qmp unix:{RUN}/{MONITOR},server=on,wait=off",
        "" if boot.restart else "-no-reboot",
        *(_raspi(boot) if machine == RASPI3B else _board(boot, machine, accelerator)),
        *(_card(medium, boot) if machine == RASPI3B else _disks(medium, boot)),
        *(_tpm(machine) if boot.tpm else []),
    ]
    line = [word for part in parts for word in part.split()]
    return [*line, "-append", kernel] if machine == RASPI3B else line


def _board(boot: Boot, machine: str, accelerator: str) -> list[str]:
    secure = boot.firmware == SECURE_BOOT
    kinds = {PC: f"q35{',smm=on' if secure else ''}", VIRT: "virt,gic-version=3"}
    screens = {PC: "-device VGA", VIRT: "-device ramfb -device qemu-xhci,id=keys -device usb-kbd,bus=keys.0"}
    model = qemu.MODELS[accelerator] if machine == PC else "cortex-a72"
    return [
        f"-machine {kinds[machine]} -accel {qemu.ACCELERATORS[accelerator]} -cpu {model} -smp {_FEW}",
        f"-m {boot.memory} -rtc base=utc -device virtio-rng-pci {screens[machine]} -serial mon:stdio",
        *(_firmware(machine, secure, STATE if boot.state else RUN) if boot.firmware != BIOS else []),
        *[f"-smbios type=11,path={RUN}/credential-{number}" for number in range(len(boot.credentials))],
        _network(boot.ssh, "virtio-net-pci,romfile="),
    ]


def _firmware(machine: str, secure: bool, variables: str) -> list[str]:
    code = FIRMWARE_FILES[machine, SECURE_BOOT if secure else UEFI][0]
    return [
        f"-drive if=pflash,format=raw,unit=0,readonly=on,file={code}",
        f"-drive if=pflash,format=raw,unit=1,file={variables}/{VARIABLES}",
        # Else the running system could write the variables that Secure Boot stands on.
        "-global driver=cfi.pflash01,property=secure,value=on" if secure and machine == PC else "",
    ]


def _network(ssh: int | None, card: str) -> str:
    if ssh is None:
        return "-nic none"
    forward = f"hostfwd=tcp:127.0.0.1:{ssh}-:22"
    return f"-netdev user,id=net,{forward} -device {card},netdev=net"


def _drive(medium: Medium, boot: Boot) -> str:
    kind, file = (medium.format, MEDIUM) if boot.persist else ("qcow2", OVERLAY)
    return f"format={kind},file={file},discard=unmap"


def _disks(medium: Medium, boot: Boot) -> list[str]:
    usb = medium.stick if boot.usb is None else boot.usb
    plug = "-device qemu-xhci,id=usb -device usb-storage,bus=usb.0,removable=on" if usb else "-device virtio-blk-pci"
    later = int(boot.from_disk)
    parts = [f"-drive if=none,id=medium,{_drive(medium, boot)} {plug},drive=medium,bootindex={later}"]
    for number, disk in enumerate(boot.disks):
        index = f",bootindex={1 - later}" if number == 0 else ""
        # Merged requests would be recorded as one, and so never torn apart.
        merging = ",request-merging=off" if disk.log else ""
        parts += [
            *drive(number, disk.log is not None),
            f"-device virtio-blk-pci,drive=disk{number},serial={disk.serial}{index}{merging}",
        ]
    if boot.seed:
        parts += [f"-drive if=none,id=seed,format=raw,readonly=on,file={SEED} -device virtio-blk-pci,drive=seed"]
    return parts


def drive(number: int, recorded: bool = False) -> list[str]:
    """The arguments that make a file the drive `disk` with this number; what is written to it may be recorded."""
    if not recorded:
        return [f"-drive if=none,id=disk{number},format=raw,file={disk_seen(number)},discard=unmap"]
    return [
        f"-blockdev driver=file,node-name=file{number},filename={disk_seen(number)},discard=unmap",
        f"-blockdev driver=raw,node-name=raw{number},file=file{number}",
        f"-blockdev driver=file,node-name=logfile{number},filename={log_seen(number)}",
        f"-blockdev driver=raw,node-name=lograw{number},file=logfile{number}",
        f"-blockdev driver=blklogwrites,node-name=disk{number},file=raw{number},log=lograw{number},log-sector-size=512",
    ]


def log_seen(number: int) -> str:
    """Where QEMU sees what it records of the disk with this number."""
    return f"/run/log{number}"


def disk_seen(number: int) -> str:
    """Where QEMU sees the disk with this number, counted from 0."""
    return f"/run/disk{number}"


def tpm_arguments() -> list[str]:
    """Of swtpm: it ends with the machine that connects to it."""
    return f"socket --tpm2 --tpmstate dir={STATE}/{TPM} --ctrl type=unixio,path={RUN}/{TPM_SOCKET} --terminate".split()


def _tpm(machine: str) -> list[str]:
    device = {PC: "tpm-crb", VIRT: "tpm-tis-device"}[machine]
    socket = f"-chardev socket,id=tpm,path={RUN}/{TPM_SOCKET}"
    return [f"{socket} -tpmdev emulator,id=tpm,chardev=tpm -device {device},tpmdev=tpm"]


def _raspi(boot: Boot) -> list[str]:
    """Its first serial port is the one that Bluetooth is on. QEMU starts the kernel, as it has no start.elf.

    Its network card is one that is plugged in; QEMU has not the one that is built in.
    """
    tcg = qemu.ACCELERATORS[qemu.TCG]
    return [
        f"-machine raspi3b -accel {tcg} -m 1G -serial null -serial mon:stdio",
        f"-kernel {RUN}/kernel -initrd {RUN}/initrd -dtb {RUN}/dtb",
        _network(boot.ssh, "usb-net") if boot.ssh else "",
    ]


def _card(medium: Medium, boot: Boot) -> list[str]:
    return [f"-drive if=sd,{_drive(medium, boot)}"]


def card_size(size: int) -> int:
    """QEMU's card readers take sizes that are a power of two; the smallest one that holds `size` bytes."""
    return 1 << (size - 1).bit_length()
