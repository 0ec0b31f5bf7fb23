# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk as the installer lays it out, made without one: for tests of what happens on it afterwards.

Its root holds what a medium installs, a repository of one package in several versions, and a systemd unit that goes
through the updates by itself and tells of it on the console.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mediabuilds import Builder

from ansible_collections.kind.kos.plugins.module_utils.node.machine import (
    bootloader,
    fatfiles,
    grubstate,
    slots,
    system_layout,
)
from kos_image import definition, grub, installing, recipe
from kos_image.toolbox import Toolbox

MIB = 1 << 20
FIRST, ESP_MIB, ROOT_MIB, HEADER_MIB = 2, 400, 4000, 32
PASSPHRASE = "correct horse battery"
ARGUMENTS = (
    "rd.luks.name={luks}=kos-root rd.luks.options=discard root=/dev/mapper/kos-root rootfstype=btrfs "
    "rootflags=subvol=@root.1 rw panic=5 rd.shell=0 rd.emergency=reboot systemd.default_device_timeout_sec=300 "
    "quiet console=ttyS0"
)
# What this machine, which has no network and nobody to log in, need not wait for where all of it is emulated.
_MASKED = (
    *("ssh.service", "systemd-networkd.service", "systemd-networkd.socket", "systemd-resolved.service"),
    *("systemd-timesyncd.service", "smartmontools.service", "mdmonitor.service", "systemd-zram-setup@.service"),
    *("getty@.service", "serial-getty@.service", "iwd.service", "keyboard-setup.service", "console-setup.service"),
    *(
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
        "blk-availability.service",
    ),
)
_FSTAB = """\
PARTLABEL=kos-esp /efi vfat umask=0077,noatime,nofail 0 2
/dev/mapper/kos-root /var btrfs subvol=@var 0 0
/dev/mapper/kos-root /var/log btrfs subvol=@log 0 0
/dev/mapper/kos-root /home btrfs subvol=@home 0 0
"""
_UNIT = """\
[Unit]
Description=Go through the updates
[Service]
ExecStart=/bin/bash /var/lib/kos-test/drive
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
"""
_GATE = "[Service]\nEnvironment=KOS_GATE_DEADLINE=900 KOS_GATE_GRACE=15\n"
# SYSTEM FOLDER IMAGE SIZE: a subvolume for each place, the longest path first.
_FILLING = """
mount --bind "$2" "$1/mnt"
mount --bind /proc "$1/proc"
chroot "$1" mkfs.btrfs -q -L kos-root --byte-count "$4" "/mnt/$3"
umount "$1/mnt" "$1/proc"
mount -o loop "$2/$3" "$1/mnt"
for pair in @log:var/log @home:home @var:var @root.1:.; do
  chroot "$1" btrfs subvolume create "/mnt/${pair%%:*}"
  cp -ax "$1/${pair#*:}/." "$1/mnt/${pair%%:*}"
  [ "${pair#*:}" = . ] || find "$1/${pair#*:}" -mindepth 1 -delete
done
sync --file-system "$1/mnt"
umount "$1/mnt"
"""


@dataclass(frozen=True)
class Parts:
    """What the stages of a medium's build made: its root's archive, the node's kernel and initrd, the toolbox."""

    root: Path
    started: Path
    toolbox: Path


def built(tmp_path_factory):
    """What a build of the stick leaves in its cache."""
    builder = Builder(tmp_path_factory.mktemp("own"), patience=4000)
    builder.run("lock")
    builder.build("usb", tmp_path_factory.mktemp("stick"))

    def newest(name):
        return max((builder.folder / "stages").glob(name), key=os.path.getmtime)

    return Parts(newest("root-*/root.tar"), newest("node-initrd-*"), newest("toolbox-*/tree"))


@dataclass(frozen=True)
class Unlock:
    """What else opens the disk while it is locked: a public key that may answer over SSH, the URL of a Tang server.

    `give` makes the server's slot in the encrypted image.
    """

    key: str = ""
    tang: str = ""
    give: Callable[[Path], None] = lambda image: None


def make(
    parts: Parts, folder: Path, luks: str, drive: str, packages: dict[int, dict[str, str]], unlock: Unlock | None = None
) -> Path:
    """The path of a disk whose system runs the script `drive`; `packages`: files of kos-probe by version.

    Its initrd is that of a medium, or one made here with what is to `unlock` it over a network.
    """
    system = folder / "system"
    system.mkdir()
    subprocess.run(["tar", "--extract", "--file", parts.root, "--directory", system], check=True)
    _install(system, parts)
    _prepare(system, parts, luks, drive, packages)
    if unlock:
        _unlockable(system, unlock)
    root = folder / "root.raw"
    toolbox = Toolbox(parts.toolbox, 0)
    _fill(system, root)
    _encrypt(root, luks, toolbox)
    if unlock:
        unlock.give(root)
    esp = folder / "esp"
    _boot(system, esp, ARGUMENTS.format(luks=luks))
    disk = _assemble(root, esp, toolbox, folder / "disk.raw")
    for left in (system, esp):
        shutil.rmtree(left)
    return disk


def _install(system: Path, parts: Parts) -> None:
    """The files that a medium lays over its root when it installs it, laid as the installer does."""
    laid = system.parent / "laid"
    laid.mkdir()
    installing.lay(definition.define("usb", "amd64"), parts.started, recipe.TREES, laid)
    tree = laid / system_layout.INSTALLED.lstrip("/") / installing.TREE
    subprocess.run(["cp", "--archive", "--no-target-directory", tree, system], check=True, capture_output=True)
    shutil.rmtree(laid)


def _prepare(system: Path, parts: Parts, luks: str, drive: str, packages: dict[int, dict[str, str]]) -> None:
    version = (parts.started / "kver").read_text().strip()
    shutil.copyfile(parts.started / "initrd", system / f"boot/initrd.img-{version}")
    image, sysimage = system / "var/lib", system / system_layout.SYSIMAGE.lstrip("/")
    binds = ""
    for name, place in system_layout.BOUND.items():
        sysimage.mkdir(parents=True, exist_ok=True)
        if (image / name).exists():
            shutil.move(image / name, sysimage / name)
        (sysimage / name).mkdir(exist_ok=True)
        (image / name).mkdir()
        binds += f"{system_layout.SYSIMAGE}/{name} {place} none bind 0 0\n"
    (system / "efi").mkdir(exist_ok=True)
    (system / "etc/fstab").write_text(_FSTAB + binds)
    (system / "etc/kernel/cmdline").write_text(ARGUMENTS.format(luks=luks) + "\n")
    (system / "etc/hostname").write_text("slots\n")
    for old in (system / "etc/apt").rglob("*.sources"):
        old.unlink()
    (system / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/var/lib/kos-test/repository ./\n")
    units = system / "etc/systemd/system"
    (units / "kos-drive.service").write_text(_UNIT)
    for name in _MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    (units / "multi-user.target.wants/kos-drive.service").symlink_to("/etc/systemd/system/kos-drive.service")
    (units / "kos-healthy.service.d").mkdir()
    (units / "kos-healthy.service.d/test.conf").write_text(_GATE)
    test = image / "kos-test"
    (test / "repository").mkdir(parents=True)
    (test / "drive").write_text(drive)
    for number, files in packages.items():
        _package(system, test / "repository", number, files)
    subprocess.run(["chroot", system, "dpkg", "--admindir", f"{system_layout.SYSIMAGE}/dpkg", "--install",
                    "/var/lib/kos-test/repository/kos-probe_1.deb"], check=True, capture_output=True)  # fmt: skip


def _unlockable(system: Path, unlock: Unlock) -> None:
    """An initrd with a network, as the installer makes it on the target."""
    place = system / "etc/kos/unlock"
    place.mkdir(parents=True)
    if unlock.key:
        (place / "authorized_keys").write_text(f"{unlock.key}\n")
        (place / "port").write_text("22\n")
        host_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "ssh_host_ed25519_key"]
        subprocess.run(host_key, check=True)
    if unlock.tang:
        (place / "tang").write_text(f"{unlock.tang}\n")
    (system / "etc/systemd/network/80-wired.network").write_text("[Match]\nName=en*\n[Network]\nDHCP=yes\n")
    (initrd,) = (system / "boot").glob("initrd.img-*")
    version = initrd.name.removeprefix("initrd.img-")
    mounts = 'for place in proc sys dev; do mount --rbind "/$place" "$1/$place"; done'
    dracut = 'exec chroot "$1" dracut --quiet --force "$2" "$3"'
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", f"{mounts}\n{dracut}", "sh"]
    subprocess.run([*apart, system, f"/boot/{initrd.name}", version], check=True, capture_output=True)


def _package(system: Path, repository: Path, number: int, files: dict[str, str]) -> None:
    """A Debian package with these files, and the index that offers it alone."""
    tree = repository / f"tree-{number}"
    for name, text in {**files, "DEBIAN/control": _control(number)}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
        (tree / name).chmod(0o755)
    (tree / "DEBIAN/control").chmod(0o644)
    name = f"kos-probe_{number}.deb"
    here = "/var/lib/kos-test/repository"
    build = ["chroot", system, "dpkg-deb", "--root-owner-group", "--build", f"{here}/tree-{number}", f"{here}/{name}"]
    subprocess.run(build, check=True, capture_output=True)
    shutil.rmtree(tree)
    digest = subprocess.run(["sha256sum", repository / name], check=True, capture_output=True, text=True)
    size = (repository / name).stat().st_size
    index = f"{_control(number)}Filename: ./{name}\nSize: {size}\nSHA256: {digest.stdout.split()[0]}\n"
    (repository / f"Packages.{number}").write_text(index)
    if number == 1:
        (repository / "Packages").write_text(index)


def _control(number: int) -> str:
    return (
        f"Package: kos-probe\nVersion: {number}\nArchitecture: all\nMaintainer: kOS\n"
        "Description: what an update of the system brings in a test\n"
    )


def _fill(system: Path, image: Path) -> None:
    """A btrfs with the subvolumes of an installed node, smaller than the image by what a LUKS header takes."""
    with image.open("wb") as stream:
        stream.truncate(ROOT_MIB * MIB)
    # In mounts of its own: whoever copies those of this machine meanwhile would keep it mounted.
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _FILLING, "sh"]
    size = (ROOT_MIB - HEADER_MIB) * MIB
    subprocess.run([*apart, system, image.parent, image.name, str(size)], check=True, capture_output=True)


def _encrypt(image: Path, luks: str, toolbox: Toolbox) -> None:
    """Put what is in the image behind a LUKS header, as cryptsetup does on a plain file."""
    (image.parent / "passphrase").write_text(PASSPHRASE)
    cost = ["--pbkdf=argon2id", "--pbkdf-memory=32768", "--pbkdf-parallel=1", "--pbkdf-force-iterations=4"]
    how = ["--encrypt", "--force-offline-reencrypt", f"--reduce-device-size={HEADER_MIB}M", *cost]
    place = ["--key-file=/build/work/passphrase", f"/build/work/{image.name}"]
    toolbox.run(
        ["cryptsetup", "-q", "reencrypt", "--type=luks2", f"--uuid={luks}", *how, *place], {"work": image.parent}
    )


def _boot(system: Path, esp: Path, arguments: str) -> None:
    """The files of the ESP, by the code that a node uses."""
    esp.mkdir()
    version = next((system / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
    kernel, initrd = (str(system / f"boot/{name}-{version}") for name in ("vmlinuz", "initrd.img"))
    slots.stage(
        str(esp), slots.Entry(1, f"kOS, system 1 ({version})", kernel, initrd, arguments.split()),
        "entries",
    )  # fmt: skip
    slots.publish(str(esp), 1)
    program = system / "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    (esp / "EFI/BOOT").mkdir(parents=True)
    shutil.copyfile(program, esp / "EFI/BOOT/BOOTX64.EFI")
    (esp / bootloader.LOADER_CONF).write_text(bootloader.configuration())


def _assemble(root: Path, esp: Path, toolbox: Toolbox, disk: Path, volume: str = "4b4f5331") -> Path:
    folder, root_mib = disk.parent, root.stat().st_size // MIB
    fat = folder / "esp.raw"
    for image, size in ((disk, FIRST + ESP_MIB + root_mib + 2), (fat, ESP_MIB)):
        with image.open("wb") as stream:
            stream.truncate(size * MIB)
    toolbox.run(["mkfs.fat", "-F", "32", "-i", volume, "-n", "KOS-ESP", "/build/work/esp.raw"], {"work": folder})
    names = [f"/build/work/esp/{name}" for name in sorted(os.listdir(esp))]
    toolbox.run(["mcopy", "-s", "-i", "/build/work/esp.raw", *names, "::"], {"work": folder})
    table = (
        f"label: gpt\nstart={FIRST}MiB, size={ESP_MIB}MiB, type={system_layout.TYPES['esp']}, name=kos-esp\n"
        f"start={FIRST + ESP_MIB}MiB, size={root_mib}MiB, type={system_layout.TYPES['root-amd64']}, name=kos-root\n"
    )
    (folder / "table").write_text(table)
    toolbox.run(["sh", "-c", f"sfdisk --quiet /build/work/{disk.name} </build/work/table"], {"work": folder})
    for image, start in ((fat, FIRST), (root, FIRST + ESP_MIB)):
        place = [f"of={disk}", "bs=1M", f"seek={start}", "conv=notrunc,sparse"]
        subprocess.run(["dd", f"if={image}", *place], check=True, capture_output=True)
        image.unlink()
    return disk


def told(said: str) -> list[dict[str, object]]:
    """What the script has told on the console: a JSON object a line, after its mark."""
    lines = (line.partition("KOS-TEST ")[2] for line in said.splitlines())
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def with_grub(folder: Path, parts: Parts, tries: int) -> Path:
    """A disk that a BIOS starts, with a good system 1 and a system 2 on trial, of which each kernel finds no root."""
    esp, toolbox = folder / "esp", Toolbox(parts.toolbox, 0)
    fatfiles.write(str(esp / grubstate.CONFIGURATION), grubstate.configuration().encode())
    nothing = folder / "nothing"
    nothing.write_bytes(b"")
    for number, left in ((1, None), (2, tries)):
        words = ["panic=1", "console=ttyS0"]
        entry = slots.Entry(number, f"kOS, system {number}", str(parts.started / "vmlinuz"), str(nothing), words, left)
        slots.stage(str(esp), entry, "grub")
        slots.publish(str(esp), number)
    core = folder / "core"
    core.mkdir()
    modules = ["biosdisk", *bootloader._GRUB_MODULES.split()]
    image = ["grub-mkimage", "-O", "i386-pc", "-p", "(,gpt2)/grub", "-o", "/build/core/core.img", *modules]
    toolbox.run(image, {"core": core})
    toolbox.run(["cp", "/usr/lib/grub/i386-pc/boot.img", "/build/core/boot.img"], {"core": core})
    disk = _grub_disk(folder, esp, toolbox)
    grub.install(core, disk)
    return disk


def _grub_disk(folder: Path, esp: Path, toolbox: Toolbox) -> Path:
    disk, fat = folder / "grub.raw", folder / "esp.raw"
    for image, size in ((disk, 64), (fat, 48)):
        with image.open("wb") as stream:
            stream.truncate(size * MIB)
    # The smallest that is still FAT32 has clusters of one sector.
    toolbox.run(["mkfs.fat", "-F", "32", "-s", "1", "/build/work/esp.raw"], {"work": folder})
    names = [f"/build/work/esp/{name}" for name in sorted(os.listdir(esp))]
    toolbox.run(["mcopy", "-s", "-i", "/build/work/esp.raw", *names, "::"], {"work": folder})
    kinds = system_layout.TYPES
    (folder / "table").write_text(
        f"label: gpt\nstart=1MiB, size=1MiB, type={kinds['bios']}\nstart=2MiB, size=48MiB, type={kinds['esp']}\n"
        f"start=50MiB, size=1MiB, type={kinds['root-amd64']}\n"
    )
    toolbox.run(["sh", "-c", "sfdisk --quiet /build/work/grub.raw </build/work/table"], {"work": folder})
    subprocess.run(
        ["dd", f"if={fat}", f"of={disk}", "bs=1M", "seek=2", "conv=notrunc"], check=True, capture_output=True
    )
    return disk
