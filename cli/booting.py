# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai lab boot`: try a medium without a stick."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path
from typing import Annotated

import typer

from ..lab import host, machines, media, media_tree, medium, privilege, qemu
from ..lab.errors import LabError, UsageError
from ..lab.identity import identify
from ..lab.machines import Boot, Disk
from ..lab.medium import Medium
from .view import errors

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PICTURE_SECONDS = 5.0

File = Annotated[Path, typer.Argument(metavar="IMAGE", help="The image, as kos-image made it.")]


def boot(
    image: File,
    firmware: Annotated[
        str, typer.Option("--firmware", metavar="KIND", help="bios, uefi or secure-boot.")
    ] = machines.UEFI,
    machine: Annotated[
        str, typer.Option("--machine", metavar="KIND", help="pc, virt or raspi3b; default: what the image is for.")
    ] = "",
    usb: Annotated[
        bool | None, typer.Option("--usb/--disk", help="As a USB stick, or a disk; default: what it was made for.")
    ] = None,
    variables: Annotated[
        str,
        typer.Option(
            "--secure-boot-variables",
            metavar="NAME|FILE",
            help="UEFI's variables: microsoft (as sold), setup (no keys yet), or a file of them.",
        ),
    ] = machines.MICROSOFT,
    certificate: Annotated[
        Path | None,
        typer.Option("--secure-boot-certificate", help="Trust this certificate (PEM) alone, in Secure Boot."),
    ] = None,
    seed: Annotated[Path | None, typer.Option("--seed", help="A second disk, such as cloud-init's seed.")] = None,
    persist: Annotated[
        bool,
        typer.Option("--persist/--snapshot", help="Write on the image itself; default: throw away what is written."),
    ] = False,
    grow: Annotated[
        str, typer.Option("--grow", metavar="SIZE", help="Size of the stick that the image lies on, such as 8G.")
    ] = "",
    credential: Annotated[
        list[str] | None,
        typer.Option("--credential", metavar="NAME=VALUE", help="Hand systemd a credential, or NAME=@FILE."),
    ] = None,
    disk: Annotated[
        list[str] | None,
        typer.Option(
            "--disk",
            metavar="FILE[:SIZE]",
            help="A disk of the machine, made where it is not there (target.raw:12G); its name is its serial number.",
        ),
    ] = None,
    first: Annotated[
        str, typer.Option("--boot", metavar="WHAT", help="What it boots from: medium or disk.")
    ] = "medium",
    tpm: Annotated[bool, typer.Option("--tpm", help="With a TPM 2.0, which remembers beside the first disk.")] = False,
    ssh: Annotated[bool, typer.Option("--ssh", help="With a network, and a port here that leads to its SSH.")] = False,
    memory: Annotated[int, typer.Option("--memory", metavar="MIB", help="Memory in MiB.")] = 2048,
    screen: Annotated[
        Path | None, typer.Option("--screen", metavar="FILE", help="Keep a picture (PNG) of its screen in a file.")
    ] = None,
) -> None:
    """Boot a medium in QEMU, with its serial port on this terminal: Ctrl-A X switches it off.

    The first time on a machine this makes a Debian 13 tree with QEMU and firmware, which takes half a minute. Without
    a usable /dev/kvm the machine is emulated and needs two minutes to boot. Nothing is written on the image unless you
    say --persist.

    Examples:

      kai lab boot kos-personal_node-usb-amd64.raw

      kai lab boot kos-personal_node-usb-amd64.raw --firmware bios --screen screen.png

      kai lab boot kos-personal_node-portable-amd64.raw --grow 8G --persist

      kai lab boot kos-personal_node-usb-amd64.raw --disk target.raw:12G --tpm

      kai lab boot kos-personal_node-qcow2-amd64.qcow2 --seed kos-personal_node-nocloud-amd64.img --ssh
    """
    _check(firmware, machines.FIRMWARES, "--firmware")
    _check(machine, ("", *machines.MACHINES), "--machine")
    _check(first, ("medium", "disk"), "--boot")
    disks = tuple(map(_disk, disk or []))
    asked = Boot(
        firmware=firmware, machine=machine, usb=usb, variables=_variables(variables), certificate=_file(certificate),
        seed=_file(seed), persist=persist, size=_bytes(grow), credentials=dict(map(_credential, credential or [])),
        ssh=_free_port() if ssh else None, memory=memory, disks=disks, from_disk=first == "disk", tpm=tpm,
        state=_state(image.absolute(), disks, persist),
    )  # fmt: skip
    found = medium.look(image.absolute())
    machines.machine_for(found, asked)
    privilege.become_root()
    lab = identify()
    tree = media_tree.ensure(lab, found.architecture, host.require(host.survey()), _say)
    with media.booted(lab, tree, found, asked, tell=lambda accelerator: _say(_starting(accelerator))) as running:
        if asked.ssh:
            _say(f"its SSH is on port {asked.ssh}: {_login(found, asked.ssh)}")
        if screen:
            threading.Thread(target=_keep_picture, args=(running, screen.absolute()), daemon=True).start()
        code = running.process.wait()
    if code:
        raise LabError(f"QEMU ended with {code}; what it said is above")


def _starting(accelerator: str) -> str:
    """How long it may take, and the way out: QEMU's terminal hears no Ctrl-C."""
    if accelerator == qemu.KVM:
        said = "Starting it on /dev/kvm: the first screen comes in half a minute or less."
    else:
        said = "Starting it emulated, without /dev/kvm: two minutes to the first screen, more on a slow machine."
    return f"{said}\nCtrl-A X switches it off."


def _login(found: Medium, port: int) -> str:
    """How to get in: a stick that was started with kos.ssh lets in root; a node the user of its seed."""
    return f"ssh -p {port} {'root' if found.stick else 'kos'}@localhost"


def _keep_picture(running: media.Running, path: Path) -> None:
    ended = threading.Event()
    while running.process.poll() is None:
        ended.wait(_PICTURE_SECONDS)
        try:
            running.picture(path)
        except (LabError, OSError):
            continue  # it has no screen yet, or no longer


def _check(given: str, known: tuple[str, ...], option: str) -> None:
    if given not in known:
        raise UsageError(f"{option} {given}: there are {', '.join(name for name in known if name)}")


def _variables(given: str) -> str:
    return given if given in (machines.MICROSOFT, machines.SETUP) else str(_file(Path(given)))


def _file(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise UsageError(f"there is no file {path}")
    return path.absolute() if path else None


def _bytes(text: str, option: str = "--grow") -> int | None:
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,9})([KMGT]?)", text)
    if not found:
        raise UsageError(f"{option} {text}: write a number and K, M, G or T, as in 8G")
    return int(found[1]) * _UNITS[found[2]]


def _credential(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not re.fullmatch(r"[\w.-]+", name):
        raise UsageError(f"--credential {name}: write NAME=VALUE or NAME=@FILE")
    if not value.startswith("@"):
        return name, value
    path = _file(Path(value[1:]))
    return name, path.read_text().rstrip("\n") if path else ""


def _disk(text: str) -> Disk:
    """The disk FILE[:SIZE], which is made where it is not there."""
    name, _colon, size = text.partition(":")
    path = Path(name).absolute()
    if not path.exists():
        if not size:
            raise UsageError(f"there is no file {path}; to make it, say how large: --disk {name}:12G")
        with path.open("xb") as file:
            file.truncate(_bytes(size, "--disk") or 0)
    return Disk(path, path.stem)


def _state(image: Path, disks: tuple[Disk, ...], persist: bool) -> Path | None:
    """Where the machine of a disk keeps what it remembers; of one that is booted by itself, where it has."""
    beside = (disks[0].path if disks else image).with_suffix(".machine")
    return beside if disks or (persist and beside.is_dir()) else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say(text: str) -> None:
    errors.print(text, style="dim", markup=False)
