# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put an image on a stick: proved before, read back after, and unusable rather than half usable in between."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from ansible_collections.kind.kos.plugins.plugin_utils import media_check
from ansible_collections.kind.kos.plugins.plugin_utils.chunks import Progress
from ansible_collections.kind.kos.plugins.plugin_utils.media import NoManifest, Sealed
from ansible_collections.kind.kos.plugins.plugin_utils.media_check import Report

from . import checking, sticks
from .errors import HostError, ImageError, Refused, UsageError
from .sticks import Disk

WRITABLE = ("usb", "portable", "disk", "pi")
_CHUNK = 4 << 20
# Without this the progress would be that of filling this machine's memory.
_FLUSH_EVERY = 8
# The partition table and a BIOS's boot code: written last, so that a stick that is not whole does not boot.
_HEAD = 1 << 20
# Of a longer stick: where something of its earlier life would be taken for a part of this one.
_BEHIND, _END = 16 << 20, 1 << 20
_BLKFLSBUF = 0x1261  # linux/fs.h: forget what is cached of a device


class HalfWritten(ImageError):
    """The stick holds a part of the image; the text says what to do."""


def put(
    image: Path,
    selector: str,
    known: Mapping[str, str],
    console: Console,
    ask: Callable[[str], str] | None,
    internal: bool = False,
) -> Report:
    """Write an image onto the disk that `selector` names; without `ask` nobody is asked. Raises ImageError.

    `known` are the public keys whose signature counts, by name; `internal` allows a disk that is built in. Returns the
    report of the image.
    """
    examine(image)
    disk = target(image, selector, internal)
    if ask is None:
        console.print(Text(f"Writing onto {disk.said}; it holds {disk.holds}."))
    # First of all: who may not write there need not wait for the proof.
    with opened(disk, image.stat().st_size) as device:
        with bar(console, "proving the image") as progress:
            report = prove(image, known, progress)
        if ask is not None:
            confirm(disk, ask)
        write(image, report, disk, device, known, console)
    return report


def offered(image: Path) -> list[Disk]:
    """The sticks and cards that the image may be put on. Raises HostError where there is none, ImageError."""
    examine(image)
    found = sticks.candidates(sticks.listing())
    if not found:
        raise HostError("no stick or card is here that could be written on: plug one in")
    return found


def examine(image: Path) -> None:
    """Refuse what is no image for a stick, before anybody waits for the proof. Raises ImageError."""
    _require_writable(image, checking.examine(image))


def _require_writable(image: Path, sealed: Sealed) -> None:
    output = sealed.manifest.about.output
    if output not in WRITABLE:
        raise UsageError(f"{image} is a {output}, which no machine boots from a stick: build usb, portable, disk or pi")


def target(image: Path, selector: str, internal: bool = False) -> Disk:
    """The disk that `selector` names, once nothing speaks against it. Raises UsageError, HostError."""
    disk = sticks.choose(sticks.listing(), selector)
    said = sticks.refusal(disk, image.stat().st_size, sticks.needed_devices(image), internal)
    if said:
        raise HostError(said)
    return disk


def confirm(disk: Disk, ask: Callable[[str], str]) -> None:
    """Have a person type what the disk is called. Raises UsageError for anything else."""
    try:
        typed = ask(f"Everything on {disk.said} ({disk.holds}) will be lost. Type '{disk.name}' to go on: ")
    except EOFError as error:
        raise UsageError("nothing was written: nobody is here to ask, so say --yes") from error
    if typed.strip() != disk.name:
        raise UsageError("nothing was written: that is not what this disk is called")


def prove(image: Path, known: Mapping[str, str], progress: Progress | None = None) -> Report:
    """The report of an image that is whole and signed. Raises Refused."""
    try:
        report = media_check.verify(image, known, progress)
    except NoManifest as error:
        raise Refused(f"{image} is not written anywhere: {error}") from error
    if report.stranger:
        raise Refused(
            f"{image} is not written anywhere: {report.faults[0].said}; if you trust that key: {checking.suggested()}"
        )
    if not report.ok or report.sealed is None:
        raise Refused(f"{image} is not written anywhere: {report.faults[0]}; build it or copy it again")
    _require_writable(image, report.sealed)
    return report


def write(image: Path, proved: Report, disk: Disk, device: int, known: Mapping[str, str], console: Console) -> None:
    """Overwrite `disk`, opened as `device`, with the image and read it back. Raises HalfWritten."""
    try:
        with bar(console, "writing") as progress:
            _copy(image, device, progress)
        _forget(device)
        with bar(console, "reading back") as progress:
            report = media_check.verify(Path(disk.path), known, progress, proved.sealed)
    except KeyboardInterrupt as error:
        raise HalfWritten(f"stopped: {disk.name} is unusable until it is written again") from error
    except (OSError, NoManifest) as error:
        said = f"{disk.path} failed ({error}): {disk.name} is unusable until it is written again, or is broken"
        raise HalfWritten(said) from error
    other = report.sealed != proved.sealed  # whole and well signed, but what was there before
    if other or not report.ok:
        said = str(report.faults[0]) if report.faults else "another medium is still there"
        raise HalfWritten(f"{disk.name} does not keep what is written on it ({said}): take another stick")


@contextlib.contextmanager
def opened(disk: Disk, size: int) -> Iterator[int]:
    """The device, for us alone, and the same one that was looked at. Raises HostError."""
    try:
        device = os.open(disk.path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except PermissionError as error:
        raise HostError(f"{disk.path} may only be written by root: run this with sudo") from error
    except OSError as error:
        raise HostError(f"{disk.path} cannot be opened ({error.strerror}): is it in use, or gone?") from error
    try:
        found = os.fstat(device)
        number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
        if not stat.S_ISBLK(found.st_mode) or number != disk.number or os.lseek(device, 0, os.SEEK_END) < size:
            raise HostError(f"{disk.path} is another disk than a moment ago: look again")
        yield device
    finally:
        os.close(device)


def _copy(image: Path, device: int, progress: Progress) -> None:
    """Write the image, its head last; raises OSError."""
    length = os.lseek(device, 0, os.SEEK_END)
    with image.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        _put(device, bytes(_HEAD), 0)
        for start, end in ((size, min(length, size + _BEHIND)), (max(size, length - _END), length)):
            _put(device, bytes(end - start), start)
        os.fsync(device)
        for number, at in enumerate(range(_HEAD, size, _CHUNK), 1):
            stream.seek(at)
            _put(device, stream.read(_CHUNK), at)
            if number % _FLUSH_EVERY == 0:
                os.fdatasync(device)
            progress(at, size)
        os.fsync(device)
        stream.seek(0)
        _put(device, stream.read(_HEAD), 0)
        os.fsync(device)
        progress(size, size)


def _put(device: int, content: bytes, at: int) -> None:
    while content:
        done = os.pwrite(device, content, at)
        content, at = content[done:], at + done


def _forget(device: int) -> None:
    """Have what is read next come from the stick, and not from memory."""
    os.posix_fadvise(device, 0, 0, os.POSIX_FADV_DONTNEED)
    # A virtual disk may not know this call; the one above did the same for it.
    with contextlib.suppress(OSError):
        fcntl.ioctl(device, _BLKFLSBUF)


@contextlib.contextmanager
def bar(console: Console, said: str) -> Iterator[Progress]:
    """A bar with speed and remaining time, moved by the function that it gives; not seen before that is called."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Bar(*columns, TimeRemainingColumn(), console=console)
    task = bar.add_task(said)

    def move(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield move
    finally:
        if bar.live.is_started:
            bar.stop()
