# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine with Debian 13's kernel and tools and as many blank disks as a test wants; it runs scripts as root.

No systemd: it is up in some seconds of an emulated processor, and the disks are all that is tested in it. Firmware it
has where a test wants that: then what is entered in its list stays in a folder, for the start from the disk.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ansible_collections.kind.kos.lab import cache, machines, media_tree, qemu
from ansible_collections.kind.kos.lab.cache import Recipe
from ansible_collections.kind.kos.lab.command import run

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300
# What the installer's actions and a node's own code call, and what older machines leave on disks.
_PACKAGES = (
    "btrfs-progs", "busybox", "cryptsetup-bin", "dmsetup", "dosfstools", "e2fsprogs", "efibootmgr", "fdisk",
    "grub-efi-amd64-signed", "grub-pc-bin", "grub2-common", "initramfs-tools", "iproute2", "kmod",
    "linux-image-cloud-amd64", "lvm2", "mdadm", "mtools", "python3", "python3-pydantic", "python3-rich",
    "python3-ruamel.yaml", "python3-typer", "python3-yaml", "restic", "rsync", "shim-signed", "squashfs-tools",
    "systemd-boot-efi-amd64-signed", "systemd-cryptsetup", "udev", "zstd",
)  # fmt: skip
# Its own file systems, the devices, the code under test, and then the agent, for as long as the machine lives.
_INIT = """\
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin LC_ALL=C.UTF-8
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs -o mode=0755 run /run; mount -t tmpfs tmp /tmp; mkdir -p /run/code /run/lock /dev/pts
ln -sfn /proc/self/fd /dev/fd
modprobe -a virtio_console dm_crypt dm_mod raid1 btrfs vfat nls_ascii nls_cp437 squashfs loop efivarfs
mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2>/dev/null
/usr/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add; udevadm settle
tar --extract --directory=/run/code --file=/dev/disk/by-id/virtio-code
exec python3 /run/code/tests/e2e/diskagent.py
"""
RECIPE = Recipe("install-disks", 3, "essential", _PACKAGES)
# Files of the machine that are a small system, and where that has them.
_SYSTEM = {
    "boot/vmlinuz-*": "boot",
    "usr/bin/[ab]*": "usr/bin",
    "usr/lib/x86_64-linux-gnu/lib[a-f]*": "usr/lib/libraries",
    "var/lib/dpkg/info/[a-d]*": "var/lib/dpkg/info",
    "var/lib/dpkg/status": "var/lib/dpkg",
}
_EMPTY = ("efi", "etc/console-setup", "home", "root", "var/log")
# An initrd gets it as well, as that of every node does.
KEYMAP = b"keycode 21 = +U+007a\n"
_CODE = (
    "cli", "collections", "installer", "plugins/__init__.py", "plugins/module_utils", "plugins/plugin_utils",
    "services/restic",
)  # fmt: skip
_LINE = (
    "root=/dev/disk/by-id/virtio-root rw console=ttyS0 loglevel=4 panic=-1 mitigations=off tsc=reliable init=/agent"
    # A busy host is too late with the ticks by which Linux tries the timer.
    " no_timer_check"
)


@dataclass(frozen=True)
class Disk:
    """A blank disk of a machine, with its serial number; a `log` records all that is written to it."""

    file: Path
    serial: str
    size: int = 12 << 30
    log: Path | None = None


@dataclass
class Machine:
    """A machine that is on."""

    process: subprocess.Popen[bytes]
    port: socket.socket
    console: Path
    pending: bytes = field(default=b"")

    def run(self, script, stdin="", check=True, seconds=PATIENCE):
        """What a script of bash says; it must end well unless that is not asked for."""
        self._send({"script": script, "stdin": stdin, "seconds": seconds})
        answer = self.answer(seconds + 30)
        if check and answer["code"]:
            pytest.fail(f"{script}\nended with {answer['code']}:\n{answer['said'][-6000:]}")
        return answer["said"] if check else (answer["said"], answer["code"])

    def apply(self, asked, seconds=900):
        """Carry out a plan, as `diskapply` has it; its events, all that was said, and the exit code."""
        return self.call("diskapply", asked, seconds)

    def call(self, module, asked, seconds=900):
        """Have a module carry out what it is asked; its lines of JSON, all that was said, and the exit code."""
        self.begin(module, asked)
        answer = self.answer(seconds)
        lines = answer["said"].splitlines()
        return [json.loads(line) for line in lines if line.startswith(("[", "{"))], answer["said"], answer["code"]

    def begin(self, module, asked):
        """Have a module carry out what it is asked, and wait for nothing."""
        self._send({"module": module, "given": asked})

    def _send(self, asked):
        self.port.sendall(json.dumps(asked).encode() + b"\n")

    def answer(self, seconds):
        """What the last script came to."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.pending:
            self.port.settimeout(max(1.0, deadline - time.monotonic()))
            try:
                piece = self.port.recv(1 << 20)
            except TimeoutError:
                piece = b""
            if not piece:
                pytest.fail(f"the machine does not answer:\n{self.console.read_text(errors='replace')[-3000:]}")
            self.pending += piece
        line, _newline, self.pending = self.pending.partition(b"\n")
        return json.loads(line)


def ensure(lab, apt, say=print):
    """The cached folder with a kernel, an initrd and a root. Raises LabError."""
    return cache.ensure(lab, RECIPE, apt, _make, "making the machine for disk tests, once (about a minute)", say)


def _make(workshop):
    tree = workshop.folder / "tree"
    workshop.debootstrap(RECIPE.variant, RECIPE.packages, tree)
    (tree / "agent").write_text(_INIT)
    (tree / "agent").chmod(0o755)
    for kind, name in (("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")):
        shutil.copy(next((tree / "boot").glob(f"{kind}-*")), workshop.folder / name)
    disk = workshop.folder / "root.ext4"
    run(["truncate", "--size=3G", str(disk)])
    workshop.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", str(tree), str(disk)])


def system_image(folder, to):
    """A small system to install: a kernel, programs, packages' records, and a file that does not compress."""
    tree, work = folder / "tree", Path(tempfile.mkdtemp(prefix="image-", dir=folder / "tree/tmp"))
    for name in (*_EMPTY, *_SYSTEM.values()):
        (work / name).mkdir(parents=True, exist_ok=True)
    for pattern, place in _SYSTEM.items():
        run(["cp", "--archive", *map(str, sorted(tree.glob(pattern))), str(work / place)])
    (work / "usr/lib/random").write_bytes(random.Random(1).randbytes(16 << 20))  # noqa: S311
    (work / "bin").symlink_to("usr/bin")
    (work / "etc/hostname").write_text("nobody\n")
    (work / "etc/console-setup/cached_UTF-8_del.kmap.gz").write_bytes(gzip.compress(KEYMAP, mtime=0))
    inside = f"/tmp/{work.name}"
    options = ["-comp", "zstd", "-Xcompression-level", "3", "-quiet", "-no-progress"]
    tool(folder, "mksquashfs", inside, f"{inside}.squashfs", *options)
    shutil.rmtree(work)
    made = work.with_name(f"{work.name}.squashfs")
    to.write_bytes(_padded(made.read_bytes()))
    made.unlink()
    return to


def code():
    """The code under test, and the agent, as a tar."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in (*_CODE, *(str(one.relative_to(ROOT)) for one in (ROOT / "tests/e2e").glob("disk*"))):
            if (ROOT / name).exists():
                archive.add(ROOT / name, name, filter=lambda one: None if "__pycache__" in one.name else one)
    return content.getvalue()


def tool(folder, *argv, **how):
    """The output of a program of the machine's tree, run here."""
    return subprocess.run(["chroot", folder / "tree", *argv], check=True, capture_output=True, **how).stdout


@contextlib.contextmanager
def booted(lab, apt, disks, memory=2048, accelerator=qemu.TCG, state=None):
    """A machine with these disks; off afterwards. With a folder `state` it has UEFI, whose variables are kept there."""
    folder = ensure(lab, apt)
    tree = media_tree.ensure(lab, "amd64", apt, print)
    with tempfile.TemporaryDirectory(prefix="kos-disks-", dir="/var/tmp") as name:
        there = Path(name)
        there.joinpath("code.tar").write_bytes(_padded(code()))
        files = {"vmlinuz": folder / "vmlinuz", "initrd": folder / "initrd", "root": folder / "root.ext4"}
        for number, disk in enumerate(disks):
            if not disk.file.exists():
                with disk.file.open("wb") as stream:
                    stream.truncate(disk.size)
            files[f"disk{number}"] = disk.file
            if disk.log:
                disk.log.touch()
                files[f"log{number}"] = disk.log
        argv = _arguments(disks, memory, accelerator)
        if state:
            files[Path(machines.STATE).name] = state
            argv += _firmware(tree, state)
        line = media_tree.command(tree, there, files, "qemu-system-x86_64", argv)
        with (there / "qemu.log").open("wb") as log:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield _connected(process, there)
        finally:
            process.kill()
            process.wait()


def _connected(process, folder):
    deadline = time.monotonic() + PATIENCE
    port = socket.socket(socket.AF_UNIX)
    while True:
        try:
            port.connect(str(folder / "agent.sock"))
            break
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                pytest.fail(f"no machine: {(folder / 'qemu.log').read_text()}")
            time.sleep(0.1)
    machine = Machine(process, port, folder / "console.log")
    machine.answer(PATIENCE)
    return machine


def _arguments(disks, memory, accelerator):
    seen = "/run/medium"
    parts = [
        "-nodefaults -no-user-config -display none -machine q35 -no-reboot",
        f"-accel {qemu.ACCELERATORS[accelerator]} -cpu {qemu.MODELS[accelerator]} -smp 2 -m {memory}",
        "-sandbox on,obsolete=deny,spawn=deny,resourcecontrol=deny",
        "-kernel /run/vmlinuz -initrd /run/initrd -device virtio-rng-pci",
        "-drive if=none,id=root,format=raw,file=/run/root,snapshot=on -device virtio-blk-pci,drive=root,serial=root",
        f"-drive if=none,id=code,format=raw,readonly=on,file={seen}/code.tar",
        "-device virtio-blk-pci,drive=code,serial=code",
        f"-chardev socket,id=agent,path={seen}/agent.sock,server=on,wait=off -device virtio-serial-pci",
        "-device virtserialport,chardev=agent,name=kos.agent",
        f"-chardev file,id=console,path={seen}/console.log -serial chardev:console",
    ]
    for number, disk in enumerate(disks):
        parts += machines.drive(number, disk.log is not None)
        parts += [f"-device virtio-blk-pci,drive=disk{number},serial={disk.serial},request-merging=off"]
    return [word for part in parts for word in part.split()] + ["-append", _LINE]


def _firmware(tree, state):
    """Firmware with the keys that computers are sold with."""
    code, _setup, sold = machines.FIRMWARE_FILES[machines.PC, machines.UEFI]
    variables = state / machines.VARIABLES
    if not variables.exists():
        shutil.copyfile(tree / qemu.TREE / sold.lstrip("/"), variables)
    unit = "if=pflash,format=raw,unit"
    return [
        *("-drive", f"{unit}=0,readonly=on,file={code}"),
        *("-drive", f"{unit}=1,file={machines.STATE}/{machines.VARIABLES}"),
    ]


def _padded(data):
    return data + bytes(-len(data) % 512)
