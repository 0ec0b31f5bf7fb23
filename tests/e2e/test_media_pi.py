# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A card encrypts itself on its first start, through a power cut, and leaves its passphrase nowhere: `make
e2e-media_pi`. QEMU has no Pi 4, and no firmware of any: a Pi 3 starts the kernel that config.txt names."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess

import mediums
import pytest
import sshed
import tampering
from mediabuilds import Builder
from tampering import Stick
from test_remote_unlock import answered, until

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]

PASSPHRASE = "correct horse battery staple"
ANSWERS = {
    "version": 1,
    "profile": "development",
    "hostname": "shed",
    "timezone": "Europe/Berlin",
    "network": [{"match": "en*", "dhcp": True, "dns": ["192.0.2.53"]}],
}
# A card reader of QEMU takes powers of two.
CARD = 4 << 30
HEADER = 16 << 20
# An emulated Pi encrypts a few MiB in a second, twice written.
PATIENCE = 3 * mediums.PATIENCE
HALF_WAY, ENCRYPTED = r"([2-9]\d) % is encrypted", r"This card is encrypted"
CHOOSE, GOES_ON, LOCKED = r"Choose a passphrase", r"Its passphrase:", r"(?i)enter passphrase for disk"
WRITE_DOWN, LOGIN = r"Then press Enter", r"login:"


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    made = Builder(tmp_path_factory.mktemp("own"), patience=4000)
    made.run("lock", "--arch", "arm64")
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("card")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def media():
    return mediums.Media(f"card{os.getpid()}")


@pytest.fixture(scope="module")
def key(folder):
    """The private key of who may log in, and unlock."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "id"], check=True)
    return folder / "id"


@pytest.fixture(scope="module")
def written(builder, folder, key):
    """The image as it is built, from answers."""
    image, answers = folder / "pi.raw", folder / "answers.yaml"
    keys = [key.with_suffix(".pub").read_text().strip()]
    user = {"name": "anna", "full_name": "Anna Attic", "ssh_keys": keys}
    # The port that leads into a machine here is this one.
    encryption = {"remote_unlock": {"ssh_keys": keys, "port": 22}}
    answers.write_text(json.dumps({**ANSWERS, "user": user, "encryption": encryption}))
    builder.run("build", "--output", "pi", "--answers", answers, "--to", image)
    return image


@pytest.fixture(scope="module")
def encrypted(builder, media, folder, written):
    """A card that had its first start: with the passphrase in a file, and a power cut half-way."""
    image = tampering.copy(written, folder / "card.raw")
    files = Stick(image, media)
    files.write("passphrase", f"{PASSPHRASE}\n".encode())
    assert holds(image, PASSPHRASE), "what is searched for later can be found"
    with on(media, image) as machine:
        machine.wait(HALF_WAY, PATIENCE)
        machine.cut()
        assert CHOOSE not in machine.said
    header = dump(builder, image, folder)
    assert header["config"]["requirements"]["mandatory"] == ["online-reencrypt-v2"]
    with on(media, image) as machine:
        machine.wait(ENCRYPTED, PATIENCE)
        machine.cut()
        assert GOES_ON not in machine.said, "the file is still there, and answers"
    return image


def on(media, image, **more):
    return media.booted(image, persist=True, size=CARD, restart=False, **more)


def root(image, target, length=None):
    """Copy the partition of the root, or its beginning, into a file."""
    part = tampering.partitions(image)["kos-root"]
    with image.open("rb") as source, target.open("wb") as file:
        source.seek(part.start)
        left = length or part.size
        while left:
            piece = source.read(min(left, 1 << 22))
            file.write(piece) if piece.strip(b"\0") else file.seek(len(piece), os.SEEK_CUR)
            left -= len(piece)
        file.truncate()
    return target


def dump(builder, image, folder):
    """The JSON of the LUKS header."""
    work = folder / "header"
    work.mkdir(exist_ok=True)
    root(image, work / "header", HEADER)
    return json.loads(builder.tool(work, "cryptsetup", "luksDump", "--dump-json-metadata", "/build/work/header"))


def holds(image, text):
    """Whether a text is anywhere on a card: in a file, in what is left of one, in a journal."""
    with image.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as card:
        return card.find(text.encode()) >= 0


def test_the_image_has_room_for_a_header_and_no_passphrase(written):
    part = tampering.partitions(written)["kos-root"]
    with written.open("rb") as file:
        file.seek(part.start)
        assert not file.read(HEADER).strip(b"\0")
        # ext4's magic number, where its superblock lies.
        assert file.read(2048)[1080:1082] == b"\x53\xef"


def test_every_byte_of_the_root_is_there_encrypted(builder, encrypted, written, folder):
    """What was written, read back with the passphrase by another computer, after the cut."""
    work = folder / "read"
    work.mkdir()
    (work / "key").write_text(PASSPHRASE)
    root(encrypted, work / "root")
    at = "/build/work"
    options = ["--batch-mode", "--force-offline-reencrypt", f"--key-file={at}/key"]
    builder.tool(work, "cryptsetup", "reencrypt", "--decrypt", *options, f"--header={at}/header", f"{at}/root")
    before = root(written, work / "before")
    size = before.stat().st_size - HEADER
    # Deciphered, the file system lies where the header was.
    compared = subprocess.run(
        ["cmp", f"--bytes={size}", f"--ignore-initial=0:{HEADER}", work / "root", before],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stdout
    shutil.rmtree(work)


@pytest.fixture(scope="module")
def finished(builder, media, encrypted, folder):
    """The card after that start, and what root sees on it at the next one."""
    with on(media, encrypted) as machine:
        if machine.wait_for(GOES_ON, LOGIN, seconds=PATIENCE)[0] != "login:":
            machine.send(f"{PASSPHRASE}\n")
            machine.answer(WRITE_DOWN, "", PATIENCE)
            machine.wait(LOGIN, PATIENCE)
        machine.cut()
    header = dump(builder, encrypted, folder)
    assert "requirements" not in header["config"] and list(header["segments"]) == ["0"]
    assert header["segments"]["0"]["offset"] == str(HEADER) and header["segments"]["0"]["type"] == "crypt"
    costs = [slot["kdf"] for slot in header["keyslots"].values() if slot["kdf"]["type"] == "argon2id"]
    assert [(one["time"], one["cpus"]) for one in costs] == [(4, 4)]
    assert 200 << 10 < costs[0]["memory"] <= 256 << 10, "a quarter of the board's GiB"
    # Who is at the console is shown what only somebody inside could see.
    card = Stick(encrypted, media)
    line = card.read("cmdline.txt").decode().strip()
    inside = " systemd.debug_shell=ttyS1 systemd.mask=serial-getty@ttyS1.service"
    card.write("cmdline.txt", f"{line}{inside}\n".encode())
    with on(media, encrypted) as machine:
        machine.answer(LOCKED, "wrong", PATIENCE)
        machine.answer(LOCKED, PASSPHRASE, PATIENCE)
        machine.wait(r"# ", PATIENCE)
        ask = (
            "findmnt --noheadings --output=SOURCE /; hostname; ls /boot/firmware; cat /etc/timezone; getent passwd anna"
        )
        machine.send(f"{ask}; df --output=size -B1M / | tail -n 1; networkctl cat 10-kos.network; echo 'it is do'ne\n")
        machine.wait(r"it is done", PATIENCE)
        said = machine.said
        # Its own initrd, with which it can be opened from afar; then nothing is left unwritten.
        made = "until [ -e /etc/kos/unlock/made ]; do sleep 5; done"
        machine.send(f"{made}; sync; umount /boot/firmware; echo 'all is writ'ten\n")
        machine.wait(r"all is written", 2 * PATIENCE)
        machine.cut()
    return encrypted, said


def test_root_lies_in_what_was_encrypted_and_is_what_was_asked_for(finished):
    image, said = finished
    for wanted in ("/dev/mapper/kos-root", "shed", "Europe/Berlin", "Anna Attic", "DNS=192.0.2.53"):
        assert wanted in said, said[-3000:]
    assert "passphrase\r" not in said.partition("findmnt")[2].partition("Europe")[0].replace("\n", "\r")
    assert not holds(image, PASSPHRASE)


def test_a_locked_card_is_opened_over_ssh(media, finished, key):
    image, _said = finished
    port = sshed.free_port()
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "ConnectTimeout=60")
    words = [word for option in options for word in ("-o", option)]
    ssh = ["ssh", "-p", str(port), "-i", str(key), *words, "root@127.0.0.1"]
    with on(media, image, ssh=port) as machine:
        machine.wait(LOCKED, PATIENCE)
        said = until([*ssh, "cat /etc/shadow"], PATIENCE)
        assert "A passphrase is typed on a terminal" in said and "root:" not in said
        assert answered(ssh, PASSPHRASE)
        machine.wait(r"# ", PATIENCE)
