# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of the media's packages: what it holds, what it refuses, what is fetched by it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from ansible_collections.kind.kos.plugins.plugin_utils import debs
from ansible_collections.kind.kos.plugins.plugin_utils.apt import AptConfiguration
from kos_image import locks, packages, toolbox
from kos_image.definition import define
from kos_image.errors import ImageError, Refused
from kos_image.packages import Lock, Package

CONTENT = b"a package"
MAWK = Package(
    name="mawk",
    version="1.3.4-1",
    architecture="amd64",
    filename="pool/main/m/mawk/mawk_1.3.4-1_amd64.deb",
    size=len(CONTENT),
    installed=2048,
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    sets=("root", "tools"),
)
KERNEL = replace(MAWK, name="linux", filename="pool/updates/main/l/linux_6_amd64.deb", sets=("root",))
LOCK = Lock("amd64", 1767225600, (KERNEL, MAWK))
WAY = AptConfiguration("http://m.example/debian", "http://s.example/security", ())
PARAGRAPH = f"""Package: mawk
Version: 1.3.4-1
Architecture: amd64
Installed-Size: 2
Filename: pool/main/m/mawk/mawk_1.3.4-1_amd64.deb
Size: {len(CONTENT)}
SHA256: {MAWK.sha256}"""


@pytest.fixture
def mirror(monkeypatch):
    """A mirror that serves `served` (or says `said`), and what was asked of it."""

    class Mirror:
        served = CONTENT
        said = ""
        asked: list[str] = []

        def helper(self, argv, **_):
            words = argv[argv.index("download-file") + 1 :]
            self.asked = words[::3]
            for path in words[1::3]:
                packages.Path(path).write_bytes(self.served)
            return packages.subprocess.CompletedProcess(argv, 100 if self.said else 0, "", self.said)

    found = Mirror()
    monkeypatch.setattr(packages.apt, "inherit", lambda: WAY)
    monkeypatch.setattr(packages.subprocess, "run", found.helper)
    return found


def test_a_lock_is_read_as_it_was_written(tmp_path):
    LOCK.write(tmp_path / "locks/amd64.json")
    assert Lock.read(tmp_path / "locks/amd64.json") == LOCK
    assert [path.name for path in (tmp_path / "locks").iterdir()] == ["amd64.json"]


def test_a_set_has_its_packages_and_no_other():
    assert LOCK.of("tools") == (MAWK,)
    assert LOCK.of("root") == (KERNEL, MAWK)
    with pytest.raises(Refused, match=r"no packages for pi: run `kos-image lock`"):
        LOCK.of("pi")


def test_the_digest_of_a_set_follows_its_contents_alone():
    elsewhere = replace(MAWK, filename="other", sets=("tools",))
    assert Lock("amd64", 0, (elsewhere,)).digest("tools") == LOCK.digest("tools")
    for changed in ({"version": "2"}, {"sha256": "00"}, {"architecture": "arm64"}, {"name": "gawk"}):
        assert Lock("amd64", 0, (replace(MAWK, **changed),)).digest("tools") != LOCK.digest("tools")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "packages": [{"name": 1}]}'])
def test_what_is_no_lock_is_refused(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    with pytest.raises(Refused, match=r"is no package lock .*run `kos-image lock`"):
        Lock.read(tmp_path / "lock")


def test_no_lock_says_how_to_make_one(tmp_path):
    with pytest.raises(Refused, match=r"there is no package lock .*run `kos-image lock`"):
        Lock.read(tmp_path / "lock")


@pytest.fixture
def mirrored(tmp_path, monkeypatch):
    """A mirror that has one package, whatever is asked for; returns the folder of its cache."""
    lists = tmp_path / "apt/amd64/lists"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "m_trixie_InRelease").write_text("Origin: Debian\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n")
    (lists / "m_trixie-updates_InRelease").write_text("Origin: Debian\nDate: Wed, 31 Dec 2025 00:00:00 UTC\n")
    monkeypatch.setattr(packages.apt, "inherit", lambda: WAY)
    monkeypatch.setattr(debs, "resolve", lambda by, together: [[PARAGRAPH] for _ in together])
    monkeypatch.setattr(packages, "run", lambda argv, environ: "")
    return tmp_path


def resolved(folder):
    return packages.resolve({"tools": ["mawk"], "root": ["mawk"]}, "amd64", folder)


def test_a_package_is_locked_once_with_all_its_sets_and_dated_by_the_newest_index(mirrored):
    asked = {"tools": ("mawk",), "root": ("mawk",)}
    assert resolved(mirrored) == Lock("amd64", 1767225600, (MAWK,), asked)


def test_a_renewed_lock_keeps_the_date_of_the_same_packages(mirrored):
    path = mirrored / "amd64.lock"
    first, changes = locks.renew(path, "amd64", mirrored)
    assert (first.made, changes) == (1767225600, [])
    replace(first, made=1).write(path)
    assert locks.renew(path, "amd64", mirrored)[0].made == 1
    replace(first, made=1, packages=(replace(first.packages[0], version="0"),)).write(path)
    renewed, changes = locks.renew(path, "amd64", mirrored)
    assert (renewed.made, changes) == (1767225600, [{"name": "mawk", "before": "0", "now": "1.3.4-1"}])


def test_sets_are_added_to_a_lock_and_survive_its_renewal(mirrored):
    path = mirrored / "amd64.lock"
    first = locks.current(path, "amd64", mirrored)
    more = locks.extended(first, path, {"profile": ["nats"]}, mirrored)
    assert "profile" in more.of("usb")[0].sets and Lock.read(path) == more
    assert locks.extended(more, path, {"profile": ["nats"]}, mirrored) is more
    assert locks.renew(path, "amd64", mirrored)[0] == more


def test_a_lock_that_nobody_can_read_is_made_anew(mirrored):
    path = mirrored / "amd64.lock"
    path.write_text("{")
    assert locks.renew(path, "amd64", mirrored)[0] == Lock.read(path)


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_a_toolbox_asks_for_nothing_that_its_architecture_lacks(architecture):
    assert ("grub-pc-bin" in toolbox.wanted(architecture)) == (architecture == "amd64")
    assert not [name for name in toolbox.wanted(architecture) if "amd64" in name]


def test_a_lock_older_than_the_definition_is_refused(mirrored):
    path = mirrored / "amd64.lock"
    lock, definition = locks.current(path, "amd64", mirrored), define("usb", "amd64")
    locks.require(lock, "usb", definition.packages)
    with pytest.raises(Refused, match=r"changed by cowsay: run `kos-image lock --arch amd64`"):
        locks.require(lock, "usb", [*definition.packages, "cowsay"])


def test_the_firmware_of_boards_comes_from_a_component_of_its_own(mirrored):
    resolved(mirrored)
    sources = (mirrored / "apt/amd64/debian.sources").read_text()
    assert sources.count("Components: main non-free-firmware\n") == 2


def test_what_is_missing_is_fetched_from_the_archive_that_has_it(tmp_path, mirror):
    folder = packages.fetch([MAWK, KERNEL], tmp_path)
    assert mirror.asked == [f"http://m.example/debian/{MAWK.filename}", f"http://s.example/security/{KERNEL.filename}"]
    assert (folder / MAWK.file).read_bytes() == CONTENT
    mirror.asked = []
    packages.fetch([MAWK, KERNEL], tmp_path)
    assert mirror.asked == []


def test_a_tampered_package_is_refused_and_named(tmp_path, mirror):
    folder = packages.fetch([MAWK], tmp_path)
    (folder / MAWK.file).write_bytes(b"A package")
    with pytest.raises(Refused, match=r"mawk_1.3.4-1_amd64.deb was tampered with or is damaged: it is not the mawk"):
        packages.fetch([MAWK], tmp_path)


def test_what_a_mirror_forges_is_never_kept_as_a_package(tmp_path, mirror):
    mirror.served = b"A package"
    with pytest.raises(Refused, match="tampered"):
        packages.fetch([MAWK], tmp_path)
    assert not (tmp_path / "debs" / MAWK.file).exists()


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("E: Failed to fetch x  404  Not Found", ImageError, "no longer has a version.*KOS_APT_MIRROR"),
        ("E: Failed to fetch x  Hash Sum mismatch", Refused, "is not the locked one"),
        ("E: Failed to fetch x  Could not connect", ImageError, "what arrived is kept"),
    ],
)
def test_what_the_mirror_lacks_is_said_with_the_way_out(tmp_path, mirror, said, error, message):
    mirror.said = said
    with pytest.raises(error, match=message) as raised:
        packages.fetch([MAWK], tmp_path)
    assert type(raised.value) is error


def test_no_room_for_the_packages_is_said_before_any_is_fetched(tmp_path, mirror, monkeypatch):
    usage = packages.shutil.disk_usage(tmp_path)._replace(free=1)
    monkeypatch.setattr(packages.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ImageError, match="free some space"):
        packages.fetch([MAWK], tmp_path)
    assert mirror.asked == []
