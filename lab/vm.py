# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver `vm`: a QEMU machine with a kernel of its own, on the same bridge as the other nodes."""

from __future__ import annotations

from pathlib import Path

from . import network, qemu, qmp, ssh, vm_image
from .command import attempt, run
from .identity import Lab
from .state import Node

BOOT_SECONDS = 900.0
_NOBODY = "has-no-identity"  # a mark in the run files


def link(node: Node) -> str:
    """The node's interface, as a .network file begins. The machine it goes on from had another address."""
    return f"[Match]\nName=en*\n\n[Link]\nMACAddress={qemu.mac(node.address)}\n"


def start(lab: Lab, node: Node) -> None:
    """Switch the node on: a new one goes on from the booted machine of its image, any other boots. Raises LabError."""
    image, disk, folder = Path(node.root), lab.node_var(node.name), lab.node_run(node.name)
    disk.mkdir(parents=True, exist_ok=True, mode=0o700)
    accelerator = qemu.KVM if vm_image.booted(image, qemu.KVM).is_dir() else qemu.TCG
    seed = _seed(folder / "seed")
    folder.joinpath("initrd").write_bytes(vm_image.initrd(image, seed))
    memory = None
    if not (disk / "disk.qcow2").exists():
        booted = f"{qemu.IMAGE}/{vm_image.booted(image, accelerator).name}"
        vm_image.make_disk(image, disk, f"{booted}/disk.qcow2")
        memory = f"{booted}/memory"
    _make_tap(lab, node)
    # The machine whose memory it goes on from had one disk and no USB.
    boots = memory is None
    spare = boots and (disk / qemu.SPARE).exists()
    machine = qemu.Machine(accelerator, qemu.mac(node.address), network.port(node.name), memory, spare, usb=boots)
    line = qemu.command(image, disk, folder, "qemu-system-x86_64", qemu.arguments(machine))
    qemu.spawn(f"{lab.node_cgroup(node.name)}/machine", network.within(lab, line), folder / "qemu.log")
    if memory:
        (folder / _NOBODY).touch()


def give_disk(lab: Lab, node: Node, size: str) -> None:
    """Give a node that is off an empty disk of `size` (as truncate(1) takes it) more. Raises LabError."""
    run(["truncate", f"--size={size}", str(lab.node_var(node.name) / qemu.SPARE)])


def settle(lab: Lab, node: Node) -> None:
    """Give a new node its identity. Raises LabError."""
    folder = lab.node_run(node.name)
    if (folder / _NOBODY).exists():
        vm_image.give_identity(folder, lab.node_cgroup(node.name), _seed(folder / "seed"))
        (folder / _NOBODY).unlink()


def _seed(folder: Path) -> vm_image.Files:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mode & 0o7777, path.read_bytes()) for path in paths}


def _make_tap(lab: Lab, node: Node) -> None:
    tap = network.port(node.name)
    attempt(["ip", "-n", lab.netns, "link", "del", tap])
    lines = [f"tuntap add dev {tap} mode tap", f"link set {tap} master {network.BRIDGE}", f"link set {tap} up"]
    run(["ip", "-n", lab.netns, "-batch", "-"], stdin="\n".join(lines) + "\n")


def release(lab: Lab, name: str) -> None:
    """Remove what a node that is off leaves in the lab's network."""
    attempt(["ip", "-n", lab.netns, "link", "del", network.port(name)])


def reset(lab: Lab, node: Node) -> None:
    """Restart the node without asking it. Raises LabError."""
    qmp.execute(lab.node_run(node.name) / "qmp.sock", "system_reset")


def shell(lab: Lab, node: Node, line: str, stdin: str) -> bool:
    """Run a line in the running node. Whether it went well."""
    return attempt(ssh.argv(lab, node, [line], "-q", "-o", "ConnectTimeout=20"), stdin=stdin).returncode == 0
