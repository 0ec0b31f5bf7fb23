# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot a medium in QEMU: as a stick, a disk or a Pi's card.

A machine lives no longer than the command that booted it, whatever becomes of that, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from . import cache, kvm, machines, media_tree, pi_card, qemu, qmp
from .command import PATH, run
from .errors import LabError, UsageError
from .identity import Lab
from .machines import Boot
from .medium import Medium

# On a disk: it takes what the machine writes.
_TEMPORARY, _PREFIX = Path("/var/tmp"), "kos-medium-"  # noqa: S108  (made for its owner alone)
_YOUNG_SECONDS = 60
_TPM_SECONDS = 20.0
# Whose the keys in UEFI's variables are: any GUID does, nothing looks it up.
_OWNER = "9a1d1c0e-6b0c-4c3c-8a55-6f7e0f3f4b53"


@dataclass(frozen=True)
class Running:
    """A machine that is on, and its run files."""

    process: subprocess.Popen[bytes]
    folder: Path

    def picture(self, path: Path) -> None:
        """Write what is on its screen as PNG. Raises LabError."""
        shot = self.folder / "screen.png"
        seen = f"{machines.RUN}/{shot.name}"
        qmp.execute(self.folder / machines.MONITOR, "screendump", filename=seen, format="png")
        shutil.move(shot, path)

    def press(self, *keys: str) -> None:
        """Press keys of its keyboard together, by the names that QEMU has for their places. Raises LabError."""
        pressed = [{"type": "qcode", "data": key} for key in keys]
        qmp.execute(self.folder / machines.MONITOR, "send-key", keys=pressed)


@dataclass(frozen=True)
class _Bench:
    """Where a machine is put together: QEMU's tree, its run files, and the files beside them that it sees."""

    image: Path
    folder: Path
    files: dict[str, Path] = field(default_factory=dict)

    def line(self, program: str, argv: list[str]) -> list[str]:
        return media_tree.command(self.image, self.folder, self.files, program, argv)


@contextlib.contextmanager
def booted(
    lab: Lab, image: Path, medium: Medium, boot: Boot, stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None, tell: Callable[[str], None] = lambda _accelerator: None,
) -> Iterator[Running]:  # fmt: skip
    """A machine that boots a medium, with its serial port on `stdin` and `stdout`; off, and gone, afterwards.

    `image` is what `media_tree.ensure` gave; `tell` hears KVM or TCG before it starts. Ctrl-A X on the serial
    port switches the machine off.
    Raises UsageError where the two do not fit, LabError where something fails.
    """
    machine = machines.machine_for(medium, boot)
    with _folder() as folder:
        bench = _Bench(image, folder, {Path(machines.MEDIUM).name: medium.path})
        accelerator = _accelerator(lab, image, medium)
        argv = _prepared(bench, medium, boot, machine, accelerator)
        tell(accelerator)
        with _tpm(bench) if boot.tpm else contextlib.nullcontext():
            process = subprocess.Popen(
                bench.line(machines.PROGRAMS[machine], argv), stdin=stdin, stdout=stdout,
                env={**os.environ, "PATH": PATH},
            )  # fmt: skip
            try:
                yield Running(process, bench.folder)
            finally:
                process.kill()
                process.wait()


@contextlib.contextmanager
def _tpm(bench: _Bench) -> Iterator[None]:
    """A TPM that waits for the machine. Raises LabError where it does not start."""
    process = subprocess.Popen(bench.line("swtpm", machines.tpm_arguments()), env={**os.environ, "PATH": PATH})
    try:
        until = time.monotonic() + _TPM_SECONDS
        while not (bench.folder / machines.TPM_SOCKET).exists():
            if process.poll() is not None or time.monotonic() > until:
                raise LabError("the TPM of this machine did not start; what it said is above")
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Run files of a machine. It is locked while in use; what a killed command left is removed."""
    for left in _TEMPORARY.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(left):
            if time.time() - left.stat().st_mtime > _YOUNG_SECONDS:  # else it may not have been locked yet
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=_TEMPORARY) as name, _locked(Path(name)):
        yield Path(name)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder. Raises OSError at once where somebody else does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _accelerator(lab: Lab, image: Path, medium: Medium) -> str:
    native = medium.architecture == cache.architecture() == media_tree.TRIED_ON_KVM
    return qemu.KVM if native and kvm.verdict(lab, image).usable else qemu.TCG


def _prepared(bench: _Bench, medium: Medium, boot: Boot, machine: str, accelerator: str) -> list[str]:
    """QEMU's arguments, once everything that they name is there."""
    size = boot.size or 0
    if size and size < medium.size:
        raise UsageError(f"{medium.path.name} does not fit: it has {medium.size} bytes, the stick would have {size}")
    if machine == machines.RASPI3B:
        size = machines.card_size(max(size, medium.size))
    if boot.persist:
        _grow(bench, medium, size)
    else:
        _overlay(bench, medium, size)
    if boot.seed:
        bench.files[Path(machines.SEED).name] = boot.seed
    bench.files.update(_disk_files(boot))
    if boot.state:
        (boot.state / machines.TPM).mkdir(parents=True, exist_ok=True)
        bench.files[Path(machines.STATE).name] = boot.state
    for number, (name, value) in enumerate(boot.credentials.items()):
        (bench.folder / f"credential-{number}").write_text(f"io.systemd.credential:{name}={value}")
    if machine == machines.RASPI3B:
        kernel = pi_card.unpack(medium, bench.folder, bench.line)
        return machines.arguments(medium, boot, machine, qemu.TCG, kernel)
    if boot.firmware != machines.BIOS:
        _variables(bench, boot, machine)
    return machines.arguments(medium, boot, machine, accelerator)


def _disk_files(boot: Boot) -> dict[str, Path]:
    """The files of the machine's disks, and those of what is recorded of them, by the names that QEMU sees."""
    found = {}
    for number, disk in enumerate(boot.disks):
        found[Path(machines.disk_seen(number)).name] = disk.path
        if disk.log:
            disk.log.touch()
            found[Path(machines.log_seen(number)).name] = disk.log
    return found


def _grow(bench: _Bench, medium: Medium, size: int) -> None:
    if size > medium.size:
        run(bench.line("qemu-img", ["resize", "-q", "-f", medium.format, machines.MEDIUM, str(size)]))


def _overlay(bench: _Bench, medium: Medium, size: int) -> None:
    """A layer over the medium, which takes what the machine writes and goes with it."""
    backing = ["-b", machines.MEDIUM, "-F", medium.format, machines.OVERLAY]
    run(bench.line("qemu-img", ["create", "-q", "-f", "qcow2", *backing, *([str(size)] if size else [])]))


def _variables(bench: _Bench, boot: Boot, machine: str) -> None:
    """UEFI's variables, as a new computer has them or as somebody has set them; a machine writes on its copy."""
    _code, setup, microsoft = machines.FIRMWARE_FILES[machine, boot.firmware]
    target, tree = bench.folder / machines.VARIABLES, bench.image / qemu.TREE
    if boot.state and (boot.state / machines.VARIABLES).exists():
        return  # it was on before
    named = {machines.SETUP: tree / setup.lstrip("/"), machines.MICROSOFT: tree / microsoft.lstrip("/")}
    if boot.certificate is None or boot.firmware != machines.SECURE_BOOT:
        shutil.copyfile(named.get(boot.variables, Path(boot.variables)), target)
        _remember(boot, target)
        return
    shutil.copyfile(boot.certificate, bench.folder / "certificate.pem")
    certificate = [_OWNER, f"{machines.RUN}/certificate.pem"]
    argv = ["--input", setup, "--output", f"{machines.RUN}/{target.name}", "--no-microsoft", "--secure-boot"]
    for option in ("--set-pk", "--add-kek", "--add-db"):
        argv += [option, *certificate]
    run(bench.line("virt-fw-vars", argv))
    _remember(boot, target)


def _remember(boot: Boot, variables: Path) -> None:
    if boot.state:
        shutil.copyfile(variables, boot.state / machines.VARIABLES)
