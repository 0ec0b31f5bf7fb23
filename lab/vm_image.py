# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cached image under every virtual node: a kernel, an initrd, a disk, and the memory of a machine that has booted.

A booted machine is kept because emulated ones boot slowly: it waits for an identity, and each node goes on from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import shutil
import socket
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..plugins.plugin_utils import cpio
from ..plugins.plugin_utils.apt import AptConfiguration
from . import base_root, cache, cgroup, kvm, qemu, qmp
from .cache import Recipe, Say, Workshop
from .command import run
from .errors import HostError, LabError
from .identity import Lab

_HERE = Path(__file__).parent
_PACKAGES = (*base_root.RECIPE.packages, "busybox", "initramfs-tools", "linux-image-cloud-amd64", "zstd")
RECIPE = Recipe(kind="vm", version=2, variant=base_root.RECIPE.variant, packages=(*_PACKAGES, *qemu.PACKAGES))
ARCHITECTURE = "amd64"
_DISK_SIZE = "12G"  # sparse: what is not written takes nothing

Files = Mapping[str, tuple[int, bytes]]

# Nobody's: every node that goes on from the booted machine gets an identity of its own.
_NOBODY: Files = {
    "etc/fstab": (0o644, b"/dev/vda / ext4 errors=remount-ro 0 1\n"),
    "etc/hostname": (0o644, b"nobody\n"),
    "etc/machine-id": (0o444, b"0123456789abcdef0123456789abcdef\n"),
}
_IDENTITY_UNIT = b"""\
[Unit]
Description=Wait for an identity
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/bin/sh /run/kos-lab/identity
StandardError=journal+console
TimeoutStartSec=infinity
"""
_BOOT_SECONDS = 300.0
_SAVE_SECONDS = 120.0
_IDENTITY_SECONDS = 120.0


def ensure(lab: Lab, apt: AptConfiguration, say: Say) -> Path:
    """The folder of the image for this configuration, made now if need be. Raises LabError."""
    if cache.architecture() != ARCHITECTURE:
        raise HostError(f"virtual nodes are {ARCHITECTURE}, this machine is not; use nodes of the nspawn driver")
    image = cache.ensure(lab, RECIPE, apt, _make, "making the image of virtual nodes, once (about a minute)", say)
    accelerator = qemu.KVM if kvm.verdict(lab, image).usable else qemu.TCG
    with _locked(image, say):
        if not booted(image, accelerator).is_dir():
            say(f"booting a virtual machine to go on from, once ({accelerator}; half a minute)")
            _boot(lab, image, accelerator)
    return image


def cached() -> list[Path]:
    """The folders of the images in the cache; the time of each is when it was made."""
    return cache.entries(RECIPE.kind)


def booted(image: Path, accelerator: str) -> Path:
    """The folder of the booted machine: its disk and its memory."""
    return image / f"booted-{accelerator}"


@contextlib.contextmanager
def _locked(image: Path, say: Say) -> Iterator[None]:
    with (image / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another lab is booting a virtual machine to go on from; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(workshop: Workshop) -> None:
    tools, tree = workshop.folder / qemu.TREE, workshop.folder / "tree"
    workshop.debootstrap("essential", qemu.PACKAGES, tools)
    for seen in (qemu.IMAGE, qemu.DISK):
        (tools / seen.lstrip("/")).mkdir()
    # With apt's lists: unpacking them takes an emulated machine half a minute.
    base_root.make_tree(workshop, _PACKAGES, tree, "--skip=cleanup/apt/lists")
    for kind, name in (("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")):
        shutil.copy(next((tree / "boot").glob(f"{kind}-*")), workshop.folder / name)
    disk = workshop.folder / "disk.ext4"
    run(["truncate", f"--size={_DISK_SIZE}", str(disk)])
    workshop.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", str(tree), str(disk)])
    shutil.rmtree(tree)


def initrd(image: Path, seed: Files, volatile: Files | None = None) -> bytes:
    """The image's initrd, which gives a disk that is nobody's yet the files of `seed`, and /run those of `volatile`."""
    script = "scripts/local-bottom"
    files = {
        f"{script}/ORDER": (0o644, f"/{script}/kos-lab\n".encode()),
        f"{script}/kos-lab": (0o755, (_HERE / "vm-initrd.sh").read_bytes()),
        **{f"seed/{name}": content for name, content in {**_NOBODY, **seed}.items()},
        **{f"volatile/{name}": content for name, content in (volatile or {}).items()},
    }
    return cpio.appended((image / "initrd").read_bytes(), files)


def make_disk(image: Path, disk: Path, backing: str) -> None:
    """Make a node's disk on top of a file of the image. Raises LabError."""
    run(qemu.command(image, disk, disk, "qemu-img", qemu.disk_arguments(backing)))


def _boot(lab: Lab, image: Path, accelerator: str) -> None:
    """Boot a machine until it waits for an identity, and keep its disk and memory. Raises LabError."""
    folder = image / "booting"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    group = f"{lab.cgroup}/build"
    try:
        make_disk(image, folder, f"{qemu.IMAGE}/disk.ext4")
        (folder / "initrd").write_bytes(initrd(image, {}, _waiting()))
        machine = qemu.arguments(qemu.Machine(accelerator, qemu.mac("10.0.0.0")))
        line = qemu.command(image, folder, folder, "qemu-system-x86_64", machine)
        qemu.spawn(group, ["unshare", "--net", *line], folder / "qemu.log")
        _heed(folder, group)
        _save(folder)
    finally:
        cgroup.remove(group)
    for name in ("initrd", "console.log", "qemu.log", "qmp.sock", "identity.sock"):
        (folder / name).unlink(missing_ok=True)
    folder.rename(booted(image, accelerator))


def _waiting() -> Files:
    return {
        "kos-lab/identity": (0o755, (_HERE / "vm-identity.sh").read_bytes()),
        "systemd/system/kos-lab-identity.service": (0o644, _IDENTITY_UNIT),
        "systemd/system/multi-user.target.d/kos-lab.conf": (0o644, b"[Unit]\nWants=kos-lab-identity.service\n"),
    }


def _heed(folder: Path, group: str) -> None:
    """Until the machine says that it waits. Raises LabError with the end of its console."""
    try:
        with _identity_socket(folder, group, _BOOT_SECONDS) as port:
            if port.recv(64) == b"waiting\n":
                return
    except OSError:
        pass
    raise LabError(f"the virtual machine to go on from did not boot:\n{last_words(folder)}")


def _save(folder: Path) -> None:
    monitor = folder / "qmp.sock"
    qmp.execute(monitor, "stop")
    qmp.execute(monitor, "migrate-set-parameters", **{"max-bandwidth": 1 << 34})
    qmp.execute(monitor, "migrate", uri=f"file:{qemu.RUN}/memory")
    deadline = time.monotonic() + _SAVE_SECONDS
    while (status := qmp.execute(monitor, "query-migrate").get("status")) != "completed":
        if status == "failed" or time.monotonic() > deadline:
            raise LabError(f"the memory of the booted virtual machine could not be saved ({status})")
        time.sleep(0.1)
    qmp.execute(monitor, "quit")


def give_identity(folder: Path, group: str, seed: Files) -> None:
    """Make the machine that waits this node, whose run files are in `folder`. Raises LabError."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, (mode, content) in seed.items():
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(content)
            archive.addfile(member, io.BytesIO(content))
    data = packed.getvalue()
    try:
        with _identity_socket(folder, group, _IDENTITY_SECONDS) as port:
            _go_on(folder / "qmp.sock")
            port.sendall(f"{len(data)} {time.time():.3f}\n".encode() + data)
            if port.recv(64) == b"taken\n":
                return
    except OSError:
        pass
    raise LabError(f"the virtual machine did not take its identity:\n{last_words(folder)}")


def _go_on(monitor: Path) -> None:
    """Let a machine run that was stopped when its memory was saved. It heeds nothing while it reads that."""
    deadline = time.monotonic() + _SAVE_SECONDS
    while qmp.execute(monitor, "query-status")["status"] == "inmigrate" and time.monotonic() < deadline:
        time.sleep(0.05)
    qmp.execute(monitor, "cont")


@contextlib.contextmanager
def _identity_socket(folder: Path, group: str, seconds: float) -> Iterator[socket.socket]:
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX) as port:
        port.settimeout(seconds)
        while True:
            try:
                port.connect(str(folder / "identity.sock"))
                break
            except OSError:
                if time.monotonic() > deadline or not cgroup.populated(group):
                    raise
                time.sleep(0.05)
        yield port


def last_words(folder: Path, lines: int = 20) -> str:
    """The end of what a machine and its QEMU printed."""
    logs = [folder / name for name in ("console.log", "qemu.log")]
    said = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
    return "\n".join(said[-lines:])
