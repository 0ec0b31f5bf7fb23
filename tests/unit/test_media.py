# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a medium: any bit that is not as it was made is found, and located."""

from __future__ import annotations

import dataclasses
import json

import disks
import pytest
from disks import MIB
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signatures import signer

from ansible_collections.kind.kos.plugins.module_utils.node import trust
from ansible_collections.kind.kos.plugins.plugin_utils import media, media_check
from ansible_collections.kind.kos.plugins.plugin_utils.chunks import CHUNK
from ansible_collections.kind.kos.plugins.plugin_utils.media import About, NoManifest
from ansible_collections.kind.kos.plugins.plugin_utils.partition_table import Partition

ABOUT = About("personal_node", "usb", "amd64", 1750000000, "ab" * 32, "cd" * 32)
SIZE = 13 * MIB
PARTITIONS = [
    ("bios", MIB, MIB),
    ("kos-root", 2 * MIB, 6 * MIB),
    ("kos-data", 9 * MIB, MIB // 2),
    ("kos-manifest", 10 * MIB, MIB),
]


def known():
    return {"maker": trust.parse_key(signer().public)[0]}


def write(path, output="usb", content=None):
    path.write_bytes(content or disks.image(SIZE, PARTITIONS))
    sealed = media.describe(path, dataclasses.replace(ABOUT, output=output), signer())
    media.embed(path, sealed)
    return sealed


@pytest.fixture(scope="module", params=["usb", "portable"])
def medium(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "kos.img"
    write(path, request.param)
    return path


def flip(path, bit):
    with path.open("r+b") as stream:
        stream.seek(bit // 8)
        byte = stream.read(1)[0]
        stream.seek(bit // 8)
        stream.write(bytes([byte ^ (1 << bit % 8)]))


def test_a_medium_is_as_it_was_made(medium):
    told = []
    report = media_check.verify(medium, known(), lambda done, total: told.append((done, total)))
    assert report.ok and report.signer == "maker"
    assert report.sealed.manifest.about.profile == "personal_node"
    assert told[-1] == (SIZE - MIB, SIZE - MIB)


def test_regions_are_every_byte_once(medium):
    manifest = media.read(medium).manifest
    at = 0
    for region in sorted(manifest.regions, key=lambda one: one.start):
        at += MIB if at == manifest.place else 0
        assert region.start == at
        at += region.size
    assert at == SIZE


INTERESTING = st.one_of(
    st.integers(0, SIZE * 8 - 1),
    # Small against the whole, and each with a check of its own: the table, the manifest, the signature, the copy.
    st.integers(0, 34 * 512 * 8),
    st.integers(10 * MIB * 8, (10 * MIB + 4096) * 8),
    st.integers((SIZE - 33 * 512) * 8, SIZE * 8 - 1),
)


@given(INTERESTING)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_found_and_located(medium, bit):
    flip(medium, bit)
    try:
        report = media_check.verify(medium, known())
    finally:
        flip(medium, bit)
    assert not report.ok
    assert any(fault.start <= bit // 8 < fault.start + fault.size for fault in report.faults), (bit, report.faults)


def test_a_longer_device_is_fine(tmp_path):
    path = tmp_path / "stick"
    write(path)
    with path.open("ab") as stream:
        stream.write(b"x" * MIB)
    assert media_check.verify(path, known()).ok


def test_a_shorter_one_is_not(tmp_path):
    path = tmp_path / "stick"
    write(path)
    with path.open("r+b") as stream:
        stream.truncate(SIZE - MIB)
    assert {fault.region for fault in media_check.verify(path, known()).faults} == {
        "space before copy of the partition table",
        "copy of the partition table",
    }


def grown(path, partitions):
    disk = bytearray(path.read_bytes())
    disk[-33 * 512 :] = bytes(33 * 512)
    disk += bytes(8 * MIB)
    disks.put_table(disk, partitions)
    path.write_bytes(disk)


def test_a_portable_stick_may_grow(tmp_path):
    path = tmp_path / "stick"
    write(path, "portable")
    grown(path, [*PARTITIONS, ("kos-persist", 11 * MIB, 9 * MIB)])
    report = media_check.verify(path, known())
    assert report.ok and report.grown
    flip(path, 3 * MIB * 8)
    assert [fault.region for fault in media_check.verify(path, known()).faults] == ["kos-root"]


def test_no_other_stick_may(tmp_path):
    path = tmp_path / "stick"
    write(path)
    grown(path, [*PARTITIONS, ("kos-persist", 11 * MIB, 9 * MIB)])
    assert {fault.region for fault in media_check.verify(path, known()).faults} >= {"partition table"}


@pytest.mark.parametrize(
    ("partitions", "said"),
    [
        ([PARTITIONS[0], ("kos-root", 2 * MIB, 5 * MIB), *PARTITIONS[2:]], "kos-root is not where it was made"),
        ([*PARTITIONS, ("evil", 9 * MIB, MIB)], "evil lies over what was made"),
    ],
)
def test_the_partitions_of_a_grown_stick_stay(tmp_path, partitions, said):
    path = tmp_path / "stick"
    write(path, "portable")
    grown(path, partitions)
    assert any(said in str(fault) for fault in media_check.verify(path, known()).faults)


def test_a_stranger_is_not_believed(tmp_path):
    path = tmp_path / "stick"
    write(path)
    other = {"other": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP"}
    report = media_check.verify(path, other)
    assert not report.ok and report.signer == "" and "not trusted here (other is)" in report.faults[0].said
    assert report.stranger.startswith("SHA256:")


def test_what_nobody_trusted_has_signed_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "stick"
    write(path)
    monkeypatch.setattr(media_check, "digests", lambda *_: pytest.fail("it was read"))
    assert not media_check.verify(path, {}).ok


def test_another_manifest_under_the_signature_is_refused(tmp_path):
    path = tmp_path / "stick"
    sealed = write(path)
    forged = dataclasses.replace(sealed.manifest, about=dataclasses.replace(ABOUT, profile="other"))
    media.embed(path, media.Sealed(forged.content(), sealed.signature, forged))
    assert "not one of this manifest" in media_check.verify(path, known()).faults[0].said


def forge(change):
    """The bytes of a manifest that says what somebody likes."""
    regions = (media.Region("image", 0, CHUNK + 1, ("ab" * 32, "cd" * 32)),)
    partitions = (Partition("kos-root", "t", "i", 0, CHUNK),)
    data = json.loads(media.Manifest(ABOUT, CHUNK + 1, None, partitions, regions).content())
    change(data)
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def test_a_manifest_that_may_be_one_is_read():
    assert media.parse(forge(lambda data: None), b"").manifest.size == CHUNK + 1


WRONG = [-1, 1.0, True, None, "1", [], {}]


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize(
    "where", [("size",), ("about", "made"), *(("regions", 0, key) for key in ("start", "size")),
              *(("partitions", 0, key) for key in ("start", "size", "attributes"))], ids=str
)  # fmt: skip
def test_numbers_that_cannot_be_are_no_manifest(where, value):
    with pytest.raises(NoManifest):
        media.parse(forge(lambda data: put(data, where, value)), b"")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("about", "profile"), 5),
        (("about", "profile"), "\x1b[2J"),
        (("about",), []),
        (("size",), 1 << 63),
        (("place",), -1),
        (("place",), CHUNK),
        (("place",), "x"),
        (("regions", 0, "name"), None),
        (("regions", 0, "start"), 1),
        (("regions", 0, "chunks"), ["ab" * 32, "zz" * 32]),
        (("regions", 0, "chunks"), ["ab" * 32, 7]),
        (("regions", 0, "chunks"), "ab"),
        (("regions", 0), 3),
        (("partitions", 0, "name"), []),
        (("partitions", 0, "size"), CHUNK + 2),
        (("partitions",), None),
    ],
    ids=str,
)
def test_what_nobody_would_write_is_no_manifest(where, value):
    with pytest.raises(NoManifest):
        media.parse(forge(lambda data: put(data, where, value)), b"")


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{}", b"[]", b"7", b"\xff", b'{"format":1,"chunk":4194304}'])
def test_other_json_is_no_manifest(content):
    with pytest.raises(NoManifest):
        media.parse(content, b"")


def put(data, where, value):
    for key in where[:-1]:
        data = data[key]
    data[where[-1]] = value


def test_a_partition_on_no_disk_is_no_table(tmp_path):
    path = tmp_path / "stick"
    disk = disks.image(SIZE, PARTITIONS[:2])
    disks.put_table(disk, [*PARTITIONS[:2], ("kos-manifest", 1 << 72, MIB)])
    path.write_bytes(disk)
    (fault,) = media_check.verify(path, known()).faults
    assert "on no disk" in fault.said


def test_an_image_that_is_no_disk_has_its_manifest_beside_it(tmp_path):
    path = tmp_path / "kos.qcow2"
    path.write_bytes(b"QFI\xfb" + bytes(5 * MIB))
    sealed = media.describe(path, ABOUT, signer())
    with pytest.raises(NoManifest, match="no partition kos-manifest"):
        media.embed(path, sealed)
    media.write_beside(path, sealed)
    assert media_check.verify(path, known()).ok
    flip(path, 8 * 5 * MIB)
    assert [str(fault) for fault in media_check.verify(path, known()).faults] == [
        "image, bytes 4194304 to 5242883: it is not what was made"
    ]


def test_the_same_image_gives_the_same_manifest(tmp_path):
    first, second = (write(tmp_path / name) for name in ("one", "two"))
    assert (first.content, first.identity) == (second.content, second.identity)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_is_no_medium_is_told_so(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(NoManifest, match="not laid out as a disk"):
        media_check.verify(path, known())
    path.write_bytes(disks.image(SIZE, PARTITIONS)[:1000])
    (fault,) = media_check.verify(path, known()).faults
    assert (fault.region, fault.said) == ("partition table", "it is cut short")
    path.write_bytes(disks.image(SIZE, PARTITIONS[:2]))
    with pytest.raises(NoManifest, match="no partition kos-manifest"):
        media_check.verify(path, known())
