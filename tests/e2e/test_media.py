# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stick: built twice, disturbed, verified bit by bit, and booted once. How else it boots: test_media_boot.py."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
import zlib

import mediums
import pytest
import tampering
from mediabuilds import Builder

from ansible_collections.kind.kos.lab import cache

SEED = int(os.environ.get("KOS_MEDIA_SEED", "6"))
BITS = 50
pytestmark = pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}")


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """Builds in the user's own cache: what is there already need not be made again."""
    made = Builder(tmp_path_factory.mktemp("own"))
    made.run("lock")
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where images go: larger than what pytest should keep of three runs."""
    made = tmp_path_factory.mktemp("media")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def stick(builder, folder):
    """A stick, and what kos-image said of it."""
    said = builder.build("usb", folder / "kos.raw")
    return folder / "kos.raw", said


def digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seen(*folders):
    """All files below folders with what changes when they are written; but for the marks of when they were used."""
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        if path.name != ".used" and not path.is_dir():
            facts = path.lstat()
            found[path] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return found


def verified(builder, image, code):
    done = builder.run("verify", image, "--json", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


# --- the same bytes, and nothing made in vain ------------------------------------------------------------------------


def test_what_it_says_of_the_image_is_so(stick):
    image, said = stick
    assert said["sha256"] == digest(image)
    assert said["size"] == image.stat().st_size


def test_without_a_change_nothing_is_touched(builder, stick):
    image, said = stick
    made = [image.parent, *(builder.folder / "stages").glob("*-*")]
    before = seen(*made)
    plan = json.loads(builder.run(*builder.argv("usb", image), "--dry-run", "--json").stdout)
    assert all(stage["cached"] for stage in plan["stages"])
    again = builder.build("usb", image)
    assert [image.parent, *(builder.folder / "stages").glob("*-*")] == made
    assert seen(*made) == before
    assert again["sha256"] == said["sha256"]


def test_a_dry_run_makes_nothing_and_says_why_it_would(builder, tmp_path):
    """Elsewhere: there, all has to be made."""
    elsewhere = builder.elsewhere(tmp_path / "cache")
    done = elsewhere.run(*elsewhere.argv("usb", tmp_path / "x.raw"), "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert all(not stage["cached"] and stage["because"] for stage in plan["stages"])
    assert plan["packages"]["missing"] == 0
    assert not (tmp_path / "x.raw").exists()
    assert not list(elsewhere.folder.glob("stages/*-*"))


def test_a_disturbed_build_elsewhere_gives_the_same_bytes(builder, stick, folder):
    """Ctrl-C while packages are installed, the plug while the root is packed, and then on to the end."""
    elsewhere, image = builder.elsewhere(folder / "cache"), folder / "there" / "other.raw"
    image.parent.mkdir()
    said, code = elsewhere.interrupted(signal.SIGINT, "root", "usb", image)
    assert code != 0
    assert "next run goes on from there" in " ".join(said.split())
    assert "Traceback" not in said
    elsewhere.interrupted(signal.SIGKILL, "system", "usb", image)
    kept = sorted(path.name for path in elsewhere.folder.glob("stages/root-*"))
    assert kept, "what was whole before the plug is kept"
    assert not list(image.parent.glob("*"))
    elsewhere.build("usb", image)
    assert sorted(path.name for path in elsewhere.folder.glob("stages/root-*")) == kept
    assert not list(elsewhere.folder.glob("stages/making-*"))
    assert digest(image) == stick[1]["sha256"]
    shutil.rmtree(elsewhere.folder)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_package_that_was_tampered_with_is_refused(builder, tmp_path):
    elsewhere = builder.elsewhere(tmp_path / "cache")
    victim = max(elsewhere.packages.glob(f"bash_*_{cache.architecture()}.deb"))
    content = victim.read_bytes()
    victim.unlink()  # a link to the user's own
    victim.write_bytes(content)
    tampering.flip(victim, len(content) // 2)
    done = elsewhere.run(*elsewhere.argv("usb", tmp_path / "x.raw"), check=False)
    assert done.returncode == 3
    assert "tampered" in done.stderr
    assert victim.name in "".join(done.stderr.split())
    assert not (tmp_path / "x.raw").exists()


def test_a_cut_network_is_said_and_the_next_run_goes_on(builder, tmp_path):
    elsewhere = builder.elsewhere(tmp_path / "cache")
    gone = max(elsewhere.packages.glob(f"bash_*_{cache.architecture()}.deb"))
    gone.unlink()
    argv = elsewhere.argv("usb", tmp_path / "x.raw")
    done = elsewhere.run(*argv, check=False, within=("unshare", "--net"))
    assert done.returncode != 0
    assert "next run goes on from there" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.raw").exists()
    elsewhere.interrupted(signal.SIGKILL, "root", "usb", tmp_path / "x.raw")
    assert gone.exists()


@contextlib.contextmanager
def small(folder, size):
    """A file system that is soon full."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_no_room_for_the_image_leaves_no_half_one(builder, stick, tmp_path):
    with small(tmp_path / "small", "64M") as full:
        done = builder.run(*builder.argv("usb", full / "kos.raw"), check=False)
        assert done.returncode != 0
        assert "free some space" in " ".join(done.stderr.split())
        assert not list(full.iterdir())


def test_no_room_in_the_cache_is_said_before_anything_is_made(builder, tmp_path):
    with small(tmp_path / "small", "64M") as full:
        elsewhere = Builder(builder.own, full)
        done = elsewhere.run(*elsewhere.argv("usb", tmp_path / "x.raw"), check=False)
        assert done.returncode == 4
        assert "MiB" in done.stderr
        assert not list(full.glob("stages/*-*"))


# --- verify ----------------------------------------------------------------------------------------------------------


def test_a_whole_stick_is_verified(builder, stick):
    assert verified(builder, stick[0], 0)["ok"]


def test_every_flipped_bit_is_found(builder, stick, folder):
    image = tampering.copy(stick[0], folder / "flipped.raw")
    places = tampering.random_bits(image, BITS, random.Random(SEED))  # noqa: S311  (to be repeated)
    for at in places:
        tampering.flip(image, at, at % 8)
    found = verified(builder, image, 3)["faults"]
    missed = [at for at in places if not any(one["start"] <= at < one["start"] + one["size"] for one in found)]
    assert not missed, f"seed {SEED}: {missed}"
    image.unlink()


@pytest.mark.parametrize("where", ["boot code", "table", "entry", "bios", "signature", "after the manifest", "copy"])
def test_a_single_bit_is_found_where_nobody_looks(builder, stick, folder, where):
    image = stick[0]
    parts = tampering.partitions(image)
    manifest, size = parts["kos-manifest"], image.stat().st_size
    at = {
        "boot code": 100, "table": 520, "entry": 1024 + 60, "bios": parts["kos-bios"].start + 5000,
        "signature": tampering.signature(image) + 100, "after the manifest": manifest.start + manifest.size - 1,
        "copy": size - 500,
    }[where]  # fmt: skip
    tampering.flip(image, at)
    try:
        found = verified(builder, image, 3)
        assert found["faults"]
    finally:
        tampering.flip(image, at)


# --- the one boot ----------------------------------------------------------------------------------------------------


def rows(picture):
    """How many different lines of points a PNG has, as they are packed (the format's specification, 5 and 10)."""
    data, packed, at = picture.read_bytes(), b"", 8
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        packed += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    points = zlib.decompress(packed)
    line = len(points) // height
    assert line > width
    return len({points[start : start + line] for start in range(0, len(points), line)})


def test_it_boots_as_a_stick_proves_itself_shows_its_screens_and_leads_to_a_shell(stick, tmp_path):
    media = mediums.Media(f"media{os.getpid()}")
    with media.booted(stick[0]) as machine:
        machine.wait("Linux version")
        assert machine.wait_for("Verified: all", "BROKEN", "Not verified", "emergency mode")[0] == "Verified: all"
        print(f"verified after {machine.seconds():.0f} s")
        machine.wait("F9 tools")
        for shown in ("Medium", "development, for amd64"):
            assert shown in machine.said
        mediums.shell(machine)
        machine.answer(r"[#$] ", "kai --version; findmnt --noheadings --output FSTYPE /")
        machine.wait(r"\nkai \d")
        machine.wait(r"\noverlay\s")
        while (seen := rows(machine.picture(tmp_path / "console.png"))) <= 100:
            assert machine.seconds() < mediums.PATIENCE, f"{seen} lines of points: the graphical console is blank"
            time.sleep(5)
