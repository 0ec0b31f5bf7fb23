# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way that media boot, and what each notices: `make e2e-media_boot`. Minutes for each where emulated."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

import mediums
import pytest
import sshed
import tampering
from chains import BIOS, CHAINS, CONSOLE, FIRMWARE, NO_SECURE_BOOT, NOBODY, OWN_KEYS, SAYS, STOCK, WHAT
from mediabuilds import Builder
from tampering import Stick

from kos_image.errors import ImageError

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]

STICK_SIZE = 4 << 30
PASSPHRASE = "correct horse battery"


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    made = Builder(tmp_path_factory.mktemp("own"), patience=4000)
    made.run("lock")
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("media")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def media():
    return mediums.Media(f"media{os.getpid()}")


@pytest.fixture(scope="module")
def keys(folder):
    """A Secure Boot key of our own, and its certificate."""
    key, certificate = folder / "db.key", folder / "db.crt"
    subject = ["-subj", "/CN=kOS tests/", "-keyout", key, "-out", certificate]
    subprocess.run(
        ["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-sha256", "-days", "30", *subject],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


@pytest.fixture(scope="module")
def stock(builder, folder):
    """A stick that starts by Debian's shim."""
    builder.build("usb", folder / "stock.raw")
    return folder / "stock.raw"


@pytest.fixture(scope="module")
def own(builder, folder, keys):
    """A stick with a kernel image signed by our own key."""
    builder.build("usb", folder / "own.raw", "--secure-boot-key", keys[0], "--secure-boot-certificate", keys[1])
    return folder / "own.raw"


@pytest.fixture
def chain(request):
    """How a chain is booted: its image, and the options of the machine."""

    def options(name):
        if name == OWN_KEYS:
            certificate = request.getfixturevalue("keys")[1]
            return request.getfixturevalue("own"), {"firmware": "secure-boot", "certificate": certificate}
        firmware = {STOCK: "secure-boot", NO_SECURE_BOOT: "uefi", BIOS: "bios"}[name]
        return request.getfixturevalue("stock"), {"firmware": firmware}

    return options


# --- what is whole boots ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAINS)
def test_a_whole_stick_boots(media, chain, name):
    image, options = chain(name)
    with media.booted(image, **options) as machine:
        machine.wait(SAYS[NOBODY])
        assert "BROKEN" not in machine.said
        state = {NO_SECURE_BOOT: "(off|unknown)", BIOS: "none"}.get(name, "on")
        assert re.search(rf"Secure Boot\s+{state}\b", machine.said)


def test_our_own_key_says_nothing_to_a_machine_as_it_is_sold(media, own):
    with media.booted(own, firmware="secure-boot", restart=False) as machine:
        assert machine.wait_for(SAYS[FIRMWARE], r"Linux version", seconds=200)[0] != "Linux version"


# --- what was tampered with ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("name", CHAINS)
def test_who_notices(builder, media, chain, folder, name, what):
    image, options = chain(name)
    stick = Stick(tampering.copy(image, folder / "tampered.raw"), media, name == OWN_KEYS, builder.tool)
    getattr(stick, what)()
    try:
        with media.booted(stick.image, restart=False, **options) as machine:
            machine.wait_for(*SAYS.values(), seconds=2 * mediums.PATIENCE)
            said = machine.said
            noticed = next((who for who, pattern in SAYS.items() if re.search(pattern, said)), "no word")
            print(f"{name}, {what}: {noticed} after {machine.seconds():.0f} s")
            if what == "command_line" and noticed == CONSOLE:
                assert tampering.MARK in said, "the argument reached the kernel"
    finally:
        stick.remove()
    assert noticed == CHAINS[name][WHAT.index(what)], said[-2000:]


# --- disks of nodes --------------------------------------------------------------------------------------------------


def test_a_virtual_machine_with_a_seed_reaches_ssh(builder, media, folder):
    key = sshed.key(folder / "ssh")
    image, seed = folder / "kos.qcow2", folder / "seed.img"
    builder.build("qcow2", image)
    builder.build("nocloud", seed, "--ssh-key", key.with_suffix(".pub"), "--hostname", "attic")
    port = sshed.free_port()
    with media.booted(image, seed=seed, ssh=port, size=8 << 30) as machine:
        machine.wait("login:", 3 * mediums.PATIENCE)
        # The profile's minimum is more than this machine has, so what the seed tells it to deploy is refused.
        said = sshed.ssh(sshed.argv(port, key), "hostname; df --output=size / | tail -1; cloud-id; kai --version")
        assert said[0] == "attic"
        assert int(said[1]) > 6 << 20, "the root has grown to its disk"
        assert said[2] == "nocloud"
        assert said[3].startswith("kai ")


# --- arm64 -----------------------------------------------------------------------------------------------------------


def test_an_arm64_stick_boots(builder, media, folder):
    image = folder / "arm64.raw"
    builder.build("usb", image, "--arch", "arm64")
    with media.booted(image, usb=False) as machine:
        machine.wait(SAYS[NOBODY], 2 * mediums.PATIENCE)


def test_a_pi_card_that_stays_in_clear_boots(builder, media, folder):
    image = folder / "pi.raw"
    builder.build("pi", image, "--arch", "arm64", "--no-encryption")
    with media.booted(image) as machine:
        machine.wait("login:", 2 * mediums.PATIENCE)


# --- a stick that remembers ------------------------------------------------------------------------------------------

NEW = r"Choose a passphrase"
AGAIN = r"The same passphrase again"
WRITE_DOWN = r"Then press Enter"
LATER = r"Passphrase or recovery key"
REFUSED = r"does not open it"
MENU = r"F9 tools"


@pytest.fixture(scope="module")
def portable(builder, folder):
    builder.build("portable", folder / "portable.raw")
    return folder / "portable.raw"


@pytest.fixture(scope="module")
def remembered(portable, media, folder):
    """A portable stick after its first boot, in which a file was written; its image and recovery key."""
    image = tampering.copy(portable, folder / "mine.raw")
    with first_boot(media, image) as machine:
        key = finish_first_boot(machine)
        in_shell(machine, "echo remembered >/root/note; echo seen >/var/lib/note; sync; systemctl poweroff")
        wait_for_end(machine)
    return image, key


def first_boot(media, image):
    return media.booted(image, persist=True, size=STICK_SIZE, memory=1024)


def finish_first_boot(machine):
    """Answer what the first boot asks; the recovery key."""
    machine.answer(NEW, PASSPHRASE)
    machine.answer(AGAIN, PASSPHRASE)
    key = machine.wait(r"\n\s+((?:[a-z]{8}-){7}[a-z]{8})")[1]
    machine.answer(WRITE_DOWN, "")
    machine.wait(MENU)
    return key


def in_shell(machine, line):
    mediums.shell(machine)
    machine.answer(r"[#$] ", line)


def wait_for_end(machine):
    deadline = time.monotonic() + mediums.PATIENCE
    while not machine.ended and time.monotonic() < deadline:
        time.sleep(1)
    assert machine.ended, machine.said[-2000:]


def opens(builder, image, folder, passphrase):
    """Whether a passphrase opens the partition of a stick, as somebody with another computer would try it."""
    part = tampering.partitions(image)["kos-persist"]
    work = folder / "persist"
    work.mkdir(exist_ok=True)
    with image.open("rb") as source, (work / "device").open("wb") as target:
        source.seek(part.start)
        target.write(source.read(64 << 20))  # the header and the key slots
    (work / "key").write_text(passphrase)
    try:
        builder.tool(
            work, "cryptsetup", "open", "--test-passphrase", "--key-file=/build/work/key", "/build/work/device"
        )
    except ImageError as refused:
        assert "No key available with this passphrase" in str(refused)
        return False
    return True


def test_it_remembers_and_asks_before_anything_starts(media, remembered):
    image, _key = remembered
    with media.booted(image, persist=True, memory=1024) as machine:
        machine.wait(LATER)
        assert not re.search(MENU, machine.said)
        machine.send(f"{PASSPHRASE}\n")
        machine.wait(MENU)
        in_shell(machine, "cat /root/note /var/lib/note")
        machine.wait(r"\nremembered\s+seen")


def test_the_recovery_key_opens_it(media, remembered):
    image, key = remembered
    with media.booted(image, persist=True, memory=1024) as machine:
        machine.answer(LATER, key)
        machine.wait(MENU)


def test_a_stranger_stays_out(media, remembered):
    image, _key = remembered
    with media.booted(image, memory=1024) as machine:
        machine.answer(LATER, "")
        machine.answer(LATER, "wrong")
        machine.wait(REFUSED)
        machine.wait(LATER)
        assert not re.search(MENU, machine.said)


def test_no_key_slot_is_empty(builder, remembered, folder):
    image, key = remembered
    assert not opens(builder, image, folder, "")
    assert opens(builder, image, folder, PASSPHRASE)
    assert opens(builder, image, folder, key)


@pytest.mark.parametrize("when", [AGAIN, r"Encrypting", r"recovery key of this stick"])
def test_a_power_cut_in_the_first_boot_starts_it_over(builder, media, portable, folder, when):
    image = tampering.copy(portable, folder / "cut.raw")
    with first_boot(media, image) as machine:
        machine.answer(NEW, "another passphrase")
        if when != AGAIN:
            machine.answer(AGAIN, "another passphrase")
        machine.wait(when)
        machine.cut()
    with first_boot(media, image) as machine:
        machine.wait(NEW)
        assert not re.search(MENU, machine.said)
        machine.send(f"{PASSPHRASE}\n")
        machine.answer(AGAIN, PASSPHRASE)
        machine.answer(WRITE_DOWN, "")
        machine.wait(MENU)
        in_shell(machine, "systemctl poweroff")
        wait_for_end(machine)
    assert opens(builder, image, folder, PASSPHRASE)
    assert not opens(builder, image, folder, "another passphrase")
    assert not opens(builder, image, folder, "")
    image.unlink()
