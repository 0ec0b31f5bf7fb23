# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unified kernel images: kernel, initrd and arguments as one signed program, so that none can be exchanged alone."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .. import files, system

STUBS = "/usr/lib/systemd/boot/efi"
# How EFI calls the machine's architecture.
SUFFIXES = {"x86_64": "x64", "aarch64": "aa64"}
# Where programs of many MiB are put together: not in memory.
_SCRATCH = "/var/tmp"  # noqa: S108 -- the folder made in it is private


@dataclass(frozen=True)
class Key:
    """A private key for Secure Boot and its certificate: paths of PEM files."""

    private: str
    certificate: str


def suffix() -> str:
    """EFI's name of this machine's architecture, as it stands in names of programs."""
    return SUFFIXES.get(platform.machine(), platform.machine())


@contextlib.contextmanager
def built(
    kernel: str, initrd: str, arguments: Sequence[str], title: str, number: int, key: Key | None
) -> Iterator[str]:
    """The path of a program that boots `kernel`; gone afterwards. Raises CommandFailed, OSError."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as work:
        inputs = {
            "cmdline": " ".join(arguments),
            "os-release": f'ID=debian\nIMAGE_ID=kos\nIMAGE_VERSION={number}\nPRETTY_NAME="{title}"\n',
        }
        for name, text in inputs.items():
            files.write(os.path.join(work, name), text.encode())
        program = os.path.join(work, "program.efi")
        signed: list[str] = []
        if key:
            signed = [f"--secureboot-private-key={key.private}", f"--secureboot-certificate={key.certificate}"]
        system.run(
            [
                *("ukify", "build", f"--linux={kernel}", f"--initrd={initrd}", f"--cmdline=@{work}/cmdline"),
                *(f"--os-release=@{work}/os-release", f"--stub={STUBS}/linux{suffix()}.efi.stub"),
                *(f"--efi-arch={suffix()}", *signed, f"--output={program}"),
            ]
        )
        yield program


def sign(program: str, key: Key, target: str) -> None:
    """Write `target`: the EFI program with a signature. Raises CommandFailed."""
    system.run(["sbsign", "--key", key.private, "--cert", key.certificate, "--output", target, program])
