# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What firmware finds: the files of each chain, what is signed and with what, and how a written root boots."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from kos_image import disk, esp, node, secureboot
from kos_image.errors import ImageError, UsageError
from kos_image.esp import Kernel
from kos_image.secureboot import Key

EPOCH = 1750000000
SIGNED = [
    "usr/lib/shim/shimx64.efi.signed",
    "usr/lib/shim/mmx64.efi.signed",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
]
UNSIGNED = [
    "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
    "usr/lib/systemd/boot/efi/linuxx64.efi.stub",
    "usr/lib/os-release",
]
OS_RELEASE = b'PRETTY_NAME="Debian GNU/Linux 13"\nID=debian\n'
SEED = disk.seed("personal_node", "usb", "amd64")


class Tools:
    """Tools that write what they were given, and note it."""

    epoch = EPOCH

    def __init__(self):
        self.asked = []

    def run(self, argv, folders, environ=None):
        self.asked.append(list(argv))

        def here(path):
            _, _, name, *rest = path.split("/")
            return folders[name].joinpath(*rest)

        if argv[0] == "ukify":
            arguments, release = (here(f"/build/work/{name}").read_text() for name in ("arguments", "os-release"))
            here("/build/work/unified").write_text(f"kernel with {arguments}\n{release}")
        elif argv[0] == "osslsigncode":
            unsigned, signed = (here(argv[argv.index(option) + 1]) for option in ("-in", "-out"))
            signed.write_text(f"signed {unsigned.read_text()}")
        return ""


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "root.tar"
    with tarfile.open(path, "w") as tar:
        for name in (*SIGNED, *UNSIGNED):
            content = OS_RELEASE if name.endswith("os-release") else Path(name).name.encode()
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def boots(tmp_path):
    (tmp_path / "vmlinuz").write_text("kernel")
    (tmp_path / "initrd").write_text("initrd")
    return Kernel(tmp_path / "vmlinuz", tmp_path / "initrd", "6.12", ("roothash=ab", "panic=30"), "kOS")


@pytest.fixture
def key(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("db.key", "db.crt"):
        (folder / name).write_text(name)
        (folder / name).chmod(0o600)
    return Key(folder / "db.key", folder / "db.crt")


@pytest.fixture
def partition(tmp_path):
    (tmp_path / "esp").mkdir()
    return tmp_path / "esp"


def _files(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_stock_machines_start_shim_which_starts_grub_which_starts_the_kernel(root, boots, partition):
    esp.stock(root, "amd64", partition)
    esp.kernel(boots, 3, partition)
    found = _files(partition)
    assert found["EFI/BOOT/BOOTX64.EFI"] == "shimx64.efi.signed"
    assert found["EFI/BOOT/grubx64.efi"] == "grubx64.efi.signed"
    assert found["EFI/BOOT/mmx64.efi"] == "mmx64.efi.signed"
    assert "linux /kos/vmlinuz 'roothash=ab' 'panic=30'" in found["EFI/debian/grub.cfg"]
    assert (found["kos/vmlinuz"], found["kos/initrd"]) == ("kernel", "initrd")


def test_a_root_without_shim_is_refused(root, partition):
    with pytest.raises(ImageError, match=r"no /usr/lib/grub/arm64-efi-signed/grubaa64\.efi\.signed"):
        esp.stock(root, "arm64", partition)


def test_with_own_keys_all_that_starts_is_signed_and_no_kernel_lies_about(root, boots, key, partition):
    tools = Tools()
    esp.own(tools, root, "amd64", boots, 3, key, partition)
    found = _files(partition)
    assert found.keys() == {"EFI/BOOT/BOOTX64.EFI", "EFI/Linux/kos.efi", "loader/loader.conf"}
    assert found["EFI/BOOT/BOOTX64.EFI"] == "signed systemd-bootx64.efi"
    first, *release = found["EFI/Linux/kos.efi"].splitlines()
    assert first == "signed kernel with roothash=ab panic=30"
    assert release == ["ID=debian", 'PRETTY_NAME="kOS"']  # what the menu says
    assert "secure-boot-enroll manual" in found["loader/loader.conf"]


def test_no_path_of_the_build_machine_and_no_clock_gets_into_what_is_signed(root, boots, key, partition, tmp_path):
    tools = Tools()
    esp.own(tools, root, "amd64", boots, 3, key, partition)
    assert not any(str(tmp_path) in word for argv in tools.asked for word in argv)
    signing = [argv for argv in tools.asked if argv[0] == "osslsigncode"]
    assert all(argv[argv.index("-time") + 1] == str(EPOCH) for argv in signing)
    assert len(signing) == 2


def test_a_set_of_keys_is_offered_for_enrolment_and_half_a_set_is_not(root, boots, key, partition):
    for name in ("PK", "KEK"):
        key.certificate.with_name(f"{name}.auth").write_text(name)
    assert secureboot.enrolment(key) == []
    key.certificate.with_name("db.auth").write_text("db")
    esp.own(Tools(), root, "amd64", boots, 3, key, partition)
    offered = {path.name for path in (partition / "loader/keys/kos").iterdir()}
    assert offered == {"PK.auth", "KEK.auth", "db.auth"}  # and no private key


@pytest.mark.parametrize(("mode", "said"), [(0o640, "others can read the key"), (None, "cannot be read")])
def test_a_key_that_others_can_read_or_nobody_is_refused(root, boots, key, partition, mode, said):
    if mode:
        key.private.chmod(mode)
    else:
        key.private.unlink()
    with pytest.raises(UsageError, match=said):
        esp.own(Tools(), root, "amd64", boots, 3, key, partition)


def test_keys_are_never_written_over(tmp_path):
    with pytest.raises(UsageError, match="exists already"):
        secureboot.make_keys(Tools(), tmp_path, "kOS")


def test_a_node_boots_the_links_that_debian_keeps(tmp_path):
    said = node.menu("kOS", ("panic=30",), 3, SEED)
    uuid = node.root_uuid(SEED)
    assert f"--set=root {uuid}\n" in said
    assert f"linux /vmlinuz 'root=UUID={uuid}' 'ro' 'panic=30'\n  initrd /initrd.img\n" in said
    assert "linux /vmlinuz.old " in said


def test_a_node_grows_and_finds_its_disk(tmp_path):
    (tmp_path / "initrd").write_text("initrd")
    own = tmp_path / "own"
    own.mkdir()
    node.files(SEED, tmp_path / "initrd", "6.12", ["mmc_block", "ext4"], node.PI, own)
    assert (own / "initrd.img").resolve() == own / "boot/initrd.img-6.12"
    assert (own / "initrd.img").read_text() == "initrd"
    root, firmware = (own / "etc/fstab").read_text().splitlines()
    assert root.split()[:4] == [f"UUID={node.root_uuid(SEED)}", "/", "ext4", "errors=remount-ro,x-systemd.growfs"]
    assert firmware.split()[:2] == [f"UUID={node.volume(SEED)}", "/boot/firmware"]
    assert (own / "boot/firmware").is_dir()
    assert 'add_drivers+=" mmc_block ext4 "\n' in (own / "etc/dracut.conf.d/50-kos.conf").read_text()
    assert "Type=root\n" in (own / "usr/lib/repart.d/50-root.conf").read_text()


def test_a_fat_volume_is_named_as_linux_names_it():
    assert node.volume(SEED) == f"{SEED.hex[:4]}-{SEED.hex[4:8]}".upper()
