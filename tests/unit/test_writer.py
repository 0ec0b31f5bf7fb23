# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing an image onto a stick: what is refused, and that a stick is either whole or does not boot."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import tarfile

import disks
import pytest
from disks import MIB
from rich.console import Console
from signatures import signer

from ansible_collections.kind.kos.plugins.module_utils.node import trust
from ansible_collections.kind.kos.plugins.plugin_utils import media, signing
from ansible_collections.kind.kos.plugins.plugin_utils.media import About
from kos_image import checking, sticks, view, writer
from kos_image.errors import HostError, Refused, UsageError
from kos_image.writer import HalfWritten

PARTITIONS = [("kos-root", MIB, 9 * MIB), ("kos-manifest", 10 * MIB, MIB)]
SIZE = 12 * MIB


def known():
    return {"maker": trust.parse_key(signer().public)[0]}


def console():
    return Console(file=io.StringIO(), width=120)


@pytest.fixture
def image(tmp_path):
    return made(tmp_path)


def made(folder, output="usb", epoch=1):
    folder.mkdir(exist_ok=True)
    path = folder / "kos.img"
    path.write_bytes(disks.image(SIZE, PARTITIONS))
    media.embed(path, media.describe(path, About("personal_node", output, "amd64", epoch, "ab" * 32), signer()))
    return path


def row(name, number, kind="disk", size=64 * MIB, **more):
    return {"path": f"/dev/{name}", "maj:min": number, "type": kind, "size": size, **more}


STICK = row("sdb", "8:16", model="Ultra Fit ", serial="4C53", tran="usb", rm=True, fstype="iso9660", label="DEBIAN")


def machine(*rows):
    return sticks.read({"blockdevices": list(rows)})


def refused(disk_row, size=SIZE, needed=None):
    return sticks.refusal(machine(disk_row)[0], size, needed or {})


def test_only_what_can_be_pulled_out_is_offered():
    internal, empty = row("nvme0n1", "259:0"), row("sdc", "8:32", size=0, rm=True)
    (found,) = sticks.candidates(machine(internal, STICK, empty))
    assert (found.path, found.name, found.serial, found.holds) == ("/dev/sdb", "Ultra Fit", "4C53", "iso9660 DEBIAN")


def test_a_stick_is_fine():
    assert refused(STICK) is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"children": [row("sdb1", "8:17", "part", mountpoints=["/media"])]},
            "/dev/sdb1 is in use at /media",
        ),
        ({"mountpoints": ["/mnt"]}, "/dev/sdb is in use at /mnt: umount /mnt"),
        ({"children": [row("sdb2", "8:18", "part", mountpoints=["[SWAP]"])]}, "swapoff /dev/sdb2"),
        (
            {"children": [row("sdb1", "8:17", "part", children=[row("dm-0", "254:0", "crypt", mountpoints=["/x"])])]},
            "/dev/dm-0 is in use at /x",
        ),
        (
            {"children": [row("sdb1", "8:17", "part", children=[row("mapper/vg-lv", "254:1", "lvm")])]},
            "in use by /dev/mapper/vg-lv (lvm)",
        ),
        ({"ro": True}, "write-protected"),
        ({"size": SIZE - 1}, "take a larger stick"),
    ],
)
def test_a_disk_in_use_is_refused(more, said):
    assert said in (refused({**STICK, **more}) or "")


def test_the_disk_of_this_system_or_of_the_image_is_refused():
    disk = {**STICK, "children": [row("sdb3", "8:19", "part")]}
    assert refused(disk, needed={"8:19": "the image"}) == "the image is on /dev/sdb: name another disk"


def test_a_partition_is_refused():
    disk = machine({**STICK, "children": [row("sdb1", "8:17", "part")]})
    said = sticks.refusal(sticks.choose(disk, "/dev/sdb1"), 1, {})
    assert said == "/dev/sdb1 is no whole disk but a part: name the disk that it is on"


@pytest.mark.parametrize(("more", "bus"), [({"tran": "nvme"}, "NVMe"), ({}, "bus unknown")])
def test_a_disk_that_is_built_in_takes_a_word_more(more, bus):
    disk = row("nvme0n1", "259:0", model="Fast", **more)
    assert (
        refused(disk)
        == f"/dev/nvme0n1, Fast, 67.1 MB, {bus}, is built into this machine: say --internal where you mean it"
    )
    assert sticks.refusal(machine(disk)[0], SIZE, {}, internal=True) is None


def test_who_is_not_asked_sees_what_is_written_on(image, monkeypatch):
    monkeypatch.setattr(sticks, "listing", lambda: machine({**STICK, "path": "/dev/none"}))
    shown = console()
    with pytest.raises(HostError, match="cannot be opened"):
        writer.put(image, "4C53", known(), shown, None)
    assert "Ultra Fit, 67.1 MB, USB; it holds iso9660 DEBIAN" in shown.file.getvalue()


def test_the_list_says_what_choose_takes(tmp_path, monkeypatch):
    shown = Console(file=io.StringIO(), width=120)
    shown.print(view.sticks(machine(STICK)))
    text = shown.file.getvalue()
    assert "device or the serial" in text and "USB" in text
    (tmp_path / "usb-Ultra_Fit").symlink_to("/dev/sdb")
    monkeypatch.setattr(sticks, "_BY_ID", tmp_path)
    for selector in ("/dev/sdb", "4C53", "usb-Ultra_Fit"):
        assert sticks.choose(machine(STICK), selector).path == "/dev/sdb"
    with pytest.raises(UsageError):
        sticks.choose(machine(STICK), "Ultra Fit")


def test_one_disk_is_meant():
    twin = {**row("sdc", "8:32"), "serial": "4C53"}
    assert sticks.choose(machine(STICK), "4C53").path == "/dev/sdb"
    with pytest.raises(UsageError, match="more than one disk"):
        sticks.choose(machine(STICK, twin), "4C53")
    for selector in ("nothing", ""):
        with pytest.raises(UsageError, match="no disk"):
            sticks.choose(machine(STICK), selector)


def test_the_devices_that_are_needed(tmp_path):
    number = os.stat(tmp_path).st_dev
    image = tmp_path / "kos.img"
    image.touch()
    found = sticks.needed_devices(image, places=())
    assert found == {f"{os.major(number)}:{os.minor(number)}": "the image"}


def test_the_model_is_typed():
    disk = machine(STICK)[0]
    asked = []
    writer.confirm(disk, lambda text: asked.append(text) or "Ultra Fit")
    assert "/dev/sdb, Ultra Fit, 67.1 MB, USB (iso9660 DEBIAN)" in asked[0]
    with pytest.raises(UsageError, match="nothing was written"):
        writer.confirm(disk, lambda _text: "yes")

    def nobody(_text):
        raise EOFError

    with pytest.raises(UsageError, match="--yes"):
        writer.confirm(disk, nobody)


def test_an_altered_image_is_not_written(image):
    with image.open("r+b") as stream:
        stream.seek(5 * MIB)
        stream.write(b"?")
    with pytest.raises(Refused, match="kos-root, bytes 5242880"):
        writer.prove(image, known())


def test_an_image_that_no_stick_boots_is_not_written(tmp_path):
    with pytest.raises(UsageError, match="is a qcow2"):
        writer.prove(made(tmp_path, "qcow2"), known())


@pytest.fixture
def stick(tmp_path):
    """A file where a device is opened: larger than the image, and full of an earlier life."""
    path = tmp_path / "stick"
    path.write_bytes(b"\xa5" * (40 * MIB))
    return dataclasses.replace(machine({**STICK, "path": str(path)})[0], size=40 * MIB)


def put(image, stick):
    proved, device = writer.prove(image, known()), os.open(stick.path, os.O_RDWR)
    try:
        writer.write(image, proved, stick, device, known(), console())
    finally:
        os.close(device)


def test_a_stick_is_the_image_and_nothing_of_its_earlier_life(image, stick, tmp_path):
    put(image, stick)
    written = (tmp_path / "stick").read_bytes()
    assert written[:SIZE] == image.read_bytes()
    assert not any(written[SIZE : SIZE + 16 * MIB]) and not any(written[-MIB:])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "Input/output error")])
def test_a_stick_that_is_not_whole_does_not_boot_and_says_so(image, stick, tmp_path, monkeypatch, error):
    calls = iter(range(100))

    def stopped(_device):
        if next(calls) == 1:
            raise error

    monkeypatch.setattr(writer.os, "fsync", stopped)
    with pytest.raises(HalfWritten, match="Ultra Fit is unusable until it is written again"):
        put(image, stick)
    assert not any((tmp_path / "stick").read_bytes()[:MIB])


def test_a_stick_that_forgets_is_found(image, stick, monkeypatch):
    keep = writer._put
    monkeypatch.setattr(writer, "_put", lambda device, content, at: keep(device, content[:-1] + b"x", at))
    with pytest.raises(HalfWritten, match="does not keep what is written"):
        put(image, stick)


def test_a_stick_that_keeps_an_older_medium_is_found(image, stick, tmp_path, monkeypatch):
    older = made(tmp_path / "older", epoch=0).read_bytes()
    (tmp_path / "stick").write_bytes(older.ljust(40 * MIB, b"\0"))
    monkeypatch.setattr(writer, "_put", lambda *_: None)
    with pytest.raises(HalfWritten, match="another medium is still there"):
        put(image, stick)


def test_a_file_is_no_disk(tmp_path):
    path = tmp_path / "notes"
    path.write_bytes(bytes(SIZE))
    disk = dataclasses.replace(machine(STICK)[0], path=str(path))
    with pytest.raises(HostError, match="another disk than a moment ago"), writer.opened(disk, SIZE):
        raise AssertionError("it was opened")


def test_who_may_not_write_there_does_not_wait_for_the_proof(image, monkeypatch):
    monkeypatch.setattr(sticks, "listing", lambda: machine(STICK))
    monkeypatch.setattr(writer, "prove", lambda *_: pytest.fail("the image was read"))

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(writer.os, "open", denied)
    with pytest.raises(HostError, match="run this with sudo"):
        writer.put(image, "4C53", known(), console(), None)


STRANGER = {"root": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP"}


def test_under_sudo_the_key_is_that_of_who_ran_it(image, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "ada")
    with pytest.raises(Refused, match=r"not trusted here .* --signer ~ada/\.config/kos/signing_key\.pub$"):
        writer.prove(image, STRANGER)
    text = said_of(image, STRANGER)
    assert "is whole, but who signed it is not known here" in text and "--signer ~ada/" in text
    assert "Write it again" not in text


def said_of(image, keys):
    shown = Console(file=io.StringIO(), width=200)
    shown.print(view.checked(image, checking.verify(image, keys)))
    return shown.file.getvalue()


def test_what_a_stranger_signed_and_is_damaged_is_damaged(image):
    with image.open("r+b") as stream:
        stream.seek(5 * MIB)
        stream.write(b"?")
    report = checking.verify(image, STRANGER)
    assert not report.whole and not checking.described(image, report)["whole"] and report.stranger
    assert "is not as it was made" in said_of(image, STRANGER) and "Write it again" in said_of(image, STRANGER)


def test_no_key_is_made_in_order_to_verify(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in (signing.VARIABLE, "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=r"no key of your own .* --signer FILE\.pub"):
        checking.known(None)
    assert not list(tmp_path.iterdir())
    own = signing.signer().public
    assert list(checking.known(None).values()) == [trust.parse_key(own)[0]]


@pytest.fixture
def loop(tmp_path):
    """A real block device, where this machine has one to spare."""
    backing = tmp_path / "loop.img"
    backing.write_bytes(b"\xa5" * (40 * MIB))
    done = subprocess.run(["losetup", "--find", "--show", str(backing)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"not shown here: a write onto a real block device (losetup: {done.stderr.strip()})")
    yield done.stdout.strip()
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


def test_a_real_device_is_written(image, loop):
    report = writer.put(image, loop, known(), console(), None, internal=True)
    assert report.signer == "maker"
    with open(loop, "rb") as stream:
        assert stream.read(SIZE) == image.read_bytes()
    busy = os.open(loop, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(HostError, match="cannot be opened"):
            writer.put(image, loop, known(), console(), None, internal=True)
    finally:
        os.close(busy)


def tar_of(path, *names):
    with tarfile.open(path, "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return path


def strangers_to_us(folder):
    """What a person may name in place of a medium, and what is said of it."""
    text = folder / "passwd"
    text.write_text("root:x:0:0:root:/root:/bin/bash\n" * 40)
    seed = folder / "seed.img"
    seed.write_bytes(bytes(43) + b"CIDATA     " + bytes(456) + b"\x55\xaa" + bytes(MIB))
    qcow = folder / "node.qcow2"
    qcow.write_bytes(b"QFI\xfb" + bytes(MIB))
    (folder / "node.raw.manifest.json").write_text("{}")
    return {
        text: "it is not laid out as a disk; kos-image build makes one",
        seed: "it is a seed",
        qcow: "not laid out as a disk",
        tar_of(folder / "home.kos", "manifest.json", "manifest.sig"): f"kai bundle verify {folder}/home.kos",
        tar_of(folder / "base.tar", "blobs", "oci-layout"): "skopeo inspect",
        folder / "node.raw.manifest.json": "it belongs to node.raw",
    }


def test_what_is_no_medium_is_told_what_it_is(tmp_path):
    for path, said in strangers_to_us(tmp_path).items():
        for look in (checking.examine, lambda one: checking.verify(one, known())):
            with pytest.raises(Refused, match=f"{path} is no medium of kOS: ") as told:
                look(path)
            assert said in str(told.value) and "as it was made" not in str(told.value)


def test_a_manifest_without_its_signature_is_asked_for(tmp_path):
    path = tmp_path / "node.qcow2"
    path.write_bytes(b"QFI\xfb" + bytes(MIB))
    media.write_beside(path, media.describe(path, About("personal_node", "qcow2", "amd64", 1, "ab"), signer()))
    assert checking.examine(path).manifest.about.output == "qcow2"
    media.beside(path)[1].unlink()
    with pytest.raises(Refused, match=r"json\.sig is not there: copy it along"):
        checking.examine(path)


def test_without_a_stick_the_image_is_looked_at_all_the_same(image, tmp_path, monkeypatch):
    monkeypatch.setattr(sticks, "listing", lambda: machine(row("nvme0n1", "259:0")))
    with pytest.raises(HostError, match="no stick or card is here"):
        writer.offered(image)
    for path, error, said in (
        (tmp_path / "none.raw", UsageError, "there is no .*none.raw"),
        (tmp_path, UsageError, "is a folder"),
        (made(tmp_path / "other", "qcow2"), UsageError, "is a qcow2"),
        (next(iter(strangers_to_us(tmp_path))), Refused, "no medium of kOS"),
    ):
        with pytest.raises(error, match=said):
            writer.offered(path)
        with pytest.raises(error, match=said):
            writer.put(path, "/dev/sdz", known(), console(), None)
    with image.open("r+b") as stream:
        stream.seek(10 * MIB + 60)
        stream.write(b"?")
    with pytest.raises(Refused, match=r"is broken .kos-manifest"):
        writer.offered(image)


def test_a_list_is_only_promised_where_there_is_one():
    with pytest.raises(UsageError, match="lists those that it has"):
        sticks.choose(machine(STICK), "/dev/sdz")
    with pytest.raises(UsageError, match="no stick or card is plugged in"):
        sticks.choose(machine(row("nvme0n1", "259:0")), "/dev/sdz")


def run(*argv):
    code = "import sys; from kos_image import main; main.main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True, check=False)


def test_what_cannot_be_read_is_a_sentence_and_no_bar(image, tmp_path, monkeypatch):
    public = tmp_path / "maker.pub"
    public.write_text(signer().public)
    for path, said, code in (
        (tmp_path / "none.raw", f"there is no {tmp_path}/none.raw", 2),
        (tmp_path, "is a folder", 2),
        (public, "is no medium of kOS", 3),
    ):
        done = run("verify", path, "--signer", public)
        told = " ".join(done.stderr.split())
        assert (done.returncode, done.stdout) == (code, "") and said.split("/")[0] in told, done
        assert "reading" not in told and "Errno" not in told
        done = run("verify", path, "--signer", public, "--json")
        assert done.returncode == code and said in json.loads(done.stdout)["error"] and not done.stderr
    assert run("verify", image, "--signer", public).returncode == 0
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    assert "there is no" in run("verify", tmp_path / "none.raw").stderr  # rather than a key to prove it with
    assert run("write", tmp_path / "none.raw").returncode == 2


def test_a_device_that_fails_is_a_sentence(image, monkeypatch):
    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checking.media_check, "verify", fails)
    with pytest.raises(Refused, match=r"cannot be read to its end .Input/output error.: it is broken"):
        checking.verify(image, known())
    monkeypatch.setattr(checking.Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no")))
    with pytest.raises(HostError, match="sudo"):
        checking.verify(image, known())
