# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles: what they hold, and that nothing but exactly that is ever taken from one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from types import SimpleNamespace

import pytest
from catalogues import catalogue, configs, machine, manifest
from signatures import request, signer

from ansible_collections.kind.kos.cli.bundles import debs, openpgp
from ansible_collections.kind.kos.plugins.module_utils.node import (
    bundle,
    facts,
    images,
    space,
    store,
    system,
    transaction,
    trust,
)
from ansible_collections.kind.kos.plugins.module_utils.node.bundle import BundleRefused
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.plugin_utils import assemble, bundles
from ansible_collections.kind.kos.plugins.plugin_utils import debs as resolver
from ansible_collections.kind.kos.plugins.plugin_utils.bundles import Content

BLOB = b"an image's layer"
DIGEST = hashlib.sha256(BLOB).hexdigest()
FILES = {
    "apt/Packages": b"Package: nats-server\n",
    "apt/InRelease": b"signed\n",
    "apt/key.asc": b"a key\n",
    "apt/pool/main/n/nats/nats_1_amd64.deb": b"!<arch>\n a package",
    f"blobs/sha256/{DIGEST}": BLOB,
}
DEB = "apt/pool/main/n/nats/nats_1_amd64.deb"
STRANGER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP"


def known():
    """Whom a node trusts that the tests' controller has enrolled."""
    return {"controller": trust.parse_key(signer().public)[0]}


def made(folder, generation="a" * 64, architecture="amd64", more=()):
    """A bundle with a file of each kind."""
    sources = folder / "sources"
    sources.mkdir(exist_ok=True)
    contents = []
    for number, (name, content) in enumerate([*FILES.items(), *more]):
        (sources / str(number)).write_bytes(content)
        contents.append(Content(name, sources / str(number)))
    image = {"digest": f"sha256:{DIGEST}", "repository": "localhost/kos/x", "size": 1, "blobs": [f"sha256:{DIGEST}"]}
    row = {"id": generation, "profile": "test", "environment": None, "services": [], "packages": [], "images": []}
    about = {"architecture": architecture, "made": "2026", "by": "x", "generations": [row], "images": [image]}
    bundles.write(folder / "test.kos", about, contents, signer())
    return folder / "test.kos"


def flip(path, name):
    """Flip a bit in the middle of one file of the bundle."""
    with tarfile.open(path) as tar:
        member = tar.getmember(name)
    with path.open("r+b") as stream:
        place = member.offset_data + member.size // 2
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 1]))


def verify(path, trusted=None):
    with bundles.opened(path) as opened:
        return opened.verify(known() if trusted is None else trusted)


def sent(path, folder, *parts):
    """What the action plugin sends to a node: the head, then `parts`."""
    archives = []
    with bundles.opened(path) as opened:
        for number, write in enumerate((opened.head, lambda stream: opened.parts(parts, stream))):
            archives.append(str(folder / f"sent{number}"))
            with open(archives[-1], "wb") as stream:
                write(stream)
    return archives


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "target"
    (path / "etc").mkdir(parents=True)
    for name, text in (("hostname", "t\n"), ("passwd", "root:x:0:0::/root:/bin/sh\n"), ("group", "root:x:0:\n")):
        (path / "etc" / name).write_text(text)
    return Root(str(path))


def receive(root, archives):
    return bundle.receive(root, archives, bundle.folder_of(root), known())


def test_a_whole_bundle_is_proved_and_names_its_signer(tmp_path):
    assert verify(made(tmp_path)) == "controller"


def test_the_same_content_gives_the_same_bundle(tmp_path):
    first, second = (made(folder) for folder in (tmp_path, tmp_path))
    before = first.read_bytes()
    made(tmp_path)
    assert second.read_bytes() == before


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_in_every_kind_of_content(tmp_path, name):
    path = made(tmp_path)
    flip(path, name)
    with pytest.raises(BundleRefused, match=f"{name} of the bundle is not what its signed list says"):
        verify(path)


def test_a_flipped_bit_in_the_list_or_its_signature_is_found(tmp_path):
    path = made(tmp_path)
    flip(path, "signature")
    with pytest.raises(BundleRefused, match=r"signature of the bundle .* is not one of its list"):
        verify(path)
    path = made(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"made":"2026"', b'"made":"2027"', 1))
    with pytest.raises(BundleRefused, match=r"signature of the bundle .* is not one of its list"):
        verify(path)


def test_without_a_signature_or_by_a_stranger_it_is_refused(tmp_path):
    path = made(tmp_path)
    with pytest.raises(BundleRefused, match=r"is signed by SHA256:\S+, who is not trusted here \(other is\)"):
        verify(path, {"other": STRANGER})
    with tarfile.open(path) as tar, tarfile.open(tmp_path / "bare.kos", "w") as bare:
        for member in tar.getmembers():
            content = tar.extractfile(member).read()
            if member.name == "signature":
                content, member.size = b"", 0
            bare.addfile(member, io.BytesIO(content))
    with pytest.raises(BundleRefused, match="carries no signature"):
        verify(tmp_path / "bare.kos")


def test_a_signature_of_a_generation_does_not_count_for_a_bundle(tmp_path):
    path = made(tmp_path)
    with bundles.opened(path) as opened:
        signature = signer().sign(opened.identity)
        with pytest.raises(BundleRefused, match="is not one of its list"):
            bundle.check_signer(opened.identity, signature, known())


@pytest.mark.parametrize("lost", ["all but the start", "half", "the last byte"])
def test_a_bundle_that_was_cut_short_says_so(tmp_path, lost):
    path = made(tmp_path)
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + last.size
    path.write_bytes(path.read_bytes()[: {"half": end // 2, "the last byte": end - 1}.get(lost, 700)])
    with pytest.raises(BundleRefused, match="is not whole: it was cut short"):
        verify(path)


def test_a_model_is_taken_out_only_as_it_was_signed(tmp_path):
    path = made(tmp_path, more=[("models/small.gguf", b"GGUF a model")])
    with bundles.opened(path) as opened:
        out = io.BytesIO()
        row = opened.extract("models/small.gguf", known(), out)
        assert (out.getvalue(), row["size"]) == (b"GGUF a model", 12)
        with pytest.raises(BundleRefused, match=r"has no models/big.gguf \(it has: small.gguf\)"):
            opened.extract("models/big.gguf", known(), out)
        with pytest.raises(BundleRefused, match="not trusted here"):
            opened.extract("models/small.gguf", {"other": STRANGER}, out)
    flip(path, "models/small.gguf")
    with bundles.opened(path) as opened, pytest.raises(BundleRefused, match=r"models/small.gguf of the bundle is not"):
        opened.extract("models/small.gguf", known(), io.BytesIO())


def test_what_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleRefused, match="there is no bundle"):
        verify(tmp_path / "nowhere.kos")
    (tmp_path / "text.kos").write_text("hello\n" * 400)
    with pytest.raises(BundleRefused, match="is no bundle"):
        verify(tmp_path / "text.kos")


def test_a_file_put_in_later_is_refused(tmp_path):
    path = made(tmp_path)
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("apt/pool/evil.deb")
        tar.addfile(info)
    with pytest.raises(BundleRefused, match="does not name 'apt/pool/evil"):
        verify(path)


def test_a_node_is_sent_what_it_lacks_and_puts_it_in_its_place(root, tmp_path):
    receive(root, sent(made(tmp_path), tmp_path, DEB, f"blobs/sha256/{DIGEST}"))
    with open(root.state("images/blobs/sha256", DIGEST), "rb") as stream:
        assert stream.read() == BLOB
    assert os.path.exists(root.state("bundle", DEB))
    with open(root.state("bundle/kos.sources"), encoding="utf-8") as stream:
        assert "Signed-By: /var/lib/kos/bundle/apt/key.asc" in stream.read()


def test_a_node_takes_the_list_alone_and_no_package_unasked(root, tmp_path):
    received = receive(root, sent(made(tmp_path), tmp_path)[:1])
    assert received.signer == "controller"
    assert not received.holds(DEB)
    assert received.size([DEB]) == len(FILES[DEB])
    assert received.blobs([f"sha256:{DIGEST}"]) == [f"blobs/sha256/{DIGEST}"]
    with pytest.raises(BundleRefused, match="the bundle has no image"):
        received.blobs([f"sha256:{'0' * 64}"])


@pytest.mark.parametrize("name", ["apt/Packages", "apt/key.asc", DEB, f"blobs/sha256/{DIGEST}"])
def test_a_node_refuses_an_altered_part_and_keeps_nothing_of_it(root, tmp_path, name):
    path = made(tmp_path)
    flip(path, name)
    with pytest.raises(BundleRefused, match="is not what its signed list says"):
        receive(root, sent(path, tmp_path, DEB, f"blobs/sha256/{DIGEST}"))
    assert not os.path.exists(root.state("images/blobs/sha256", DIGEST)) or name != f"blobs/sha256/{DIGEST}"
    assert not os.path.exists(root.state("bundle", name))


@pytest.mark.parametrize("path", ["apt/../../../etc/passwd", "etc/passwd", "models/x.gguf", f"blobs/sha256/{'0' * 64}"])
def test_a_signed_name_that_leads_elsewhere_is_not_followed(root, tmp_path, path):
    archives = sent(made(tmp_path, more=[(path, b"x")]), tmp_path, path)
    with pytest.raises(BundleRefused, match="nothing that a node takes"):
        receive(root, archives)


def test_a_bundle_for_other_machines_or_plans_is_refused(root, tmp_path):
    received = receive(root, sent(made(tmp_path, architecture="arm64"), tmp_path)[:1])
    with pytest.raises(BundleRefused, match=r"the bundle is for arm64, and this node is amd64: .*--arch"):
        bundle.check_architecture(received, "amd64")
    bundle.check_architecture(received, "arm64")
    other = {"packages": ["caddy"], "images": []}
    with pytest.raises(BundleRefused, match="was not made for the generation bbbb"):
        bundle.check_purpose(received, "b" * 64, other)
    bundle.check_purpose(received, "a" * 64, other)


def test_other_settings_of_what_a_bundle_holds_need_no_other_bundle(root, tmp_path):
    received = receive(root, sent(made(tmp_path), tmp_path)[:1])
    row = received.manifest["generations"][0]
    bundle.check_purpose(received, "b" * 64, row)
    with pytest.raises(BundleRefused, match="was not made for the generation bbbb"):
        bundle.check_purpose(received, "b" * 64, {**row, "images": [*row["images"], "quay.io/x@sha256:0"]})


def test_the_refusal_of_another_plan_says_what_differs_and_the_command(tmp_path):
    wanted = {
        "id": "b" * 64, "profile": "server", "environment": "production",
        "services": ["caddy"], "packages": ["caddy"], "images": [],
    }  # fmt: skip
    with bundles.opened(made(tmp_path)) as opened:
        said = bundles.refusal(opened, wanted)
        assert bundles.refusal(opened, {**wanted, "id": "a" * 64}) is None
        other = bundles.refusal(opened, {**opened.manifest["generations"][0], "id": "c" * 64})
    assert "profile test in the bundle, server here" in said
    assert "the bundle lacks the packages caddy" in said
    assert "kai bundle build --profile server" in said
    assert other is None, "it asks for nothing that is not there"


def test_apt_looks_nowhere_but_in_the_bundle(root, tmp_path):
    assert bundle.source_of(root) == system.USUAL
    receive(root, sent(made(tmp_path), tmp_path))
    source = bundle.source_of(root)
    assert "Dir::Etc::sourcelist=/var/lib/kos/bundle/kos.sources" in source.options
    assert "Dir::Etc::sourceparts=/dev/null" in source.options
    assert bundle.path_of("file:/var/lib/kos/bundle/apt/pool/main/a/apt/apt_1%2b2_amd64.deb") == (
        "apt/pool/main/a/apt/apt_1+2_amd64.deb"
    )
    bundle.forget(root)
    assert bundle.source_of(root) == system.USUAL


def test_packages_of_an_earlier_bundle_stay_only_where_this_one_has_the_same(root, tmp_path):
    receive(root, sent(made(tmp_path), tmp_path, DEB))
    assert receive(root, sent(made(tmp_path), tmp_path)[:1]).holds(DEB)
    with open(root.state("bundle", DEB), "ab") as stream:
        stream.write(b"altered")
    assert not receive(root, sent(made(tmp_path), tmp_path)[:1]).holds(DEB)


def generation(folder, **services):
    none = {"substrates": {"deb": {"packages": []}}}
    rows = [manifest("status", tier=0, **none), manifest("nftables", **none)]
    rows += [manifest("caddy", provides=["gateway"], **none), manifest("db", **{**none, **services})]
    asked = assemble.Request(
        "test", configs=configs(folder, {"services": {"database": "db"}}), services=catalogue(folder, *rows)
    )
    return assemble.generation(assemble.plan(asked, machine()))


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(facts, "architecture", lambda: "amd64")


def test_a_refused_bundle_leaves_the_node_as_it_was(root, tmp_path, here):
    built = generation(tmp_path)
    path = made(tmp_path, built.id)
    flip(path, "apt/Packages")
    archives = tuple(sent(path, tmp_path)[:1])
    with pytest.raises(BundleRefused, match="apt/Packages of the bundle"):
        transaction.stage(root, request(built, bundle=archives), built.archive())
    assert store.listing(root) == []
    assert not os.path.exists(root.state("journal"))


def packages(root, monkeypatch, free):
    """A node that lacks one package, with `free` bytes on its disk."""
    uri = f"file:/var/lib/kos/bundle/{DEB}"
    monkeypatch.setattr(system, "packages_to_fetch", lambda *_a, **_o: [system.Download("n.deb", 20, uri)])
    monkeypatch.setattr(system, "installed_bytes", lambda *_a, **_o: 100)
    monkeypatch.setattr(system, "download_packages", lambda *_a, **_o: None)
    state = os.statvfs(root.path)
    shown = SimpleNamespace(f_bavail=free, f_frsize=1, f_files=state.f_files, f_favail=state.f_favail)
    monkeypatch.setattr(space.os, "statvfs", lambda _path: shown)


def test_a_node_asks_for_the_packages_that_it_lacks(root, tmp_path, monkeypatch, here):
    built = generation(tmp_path, substrates={"deb": {"packages": ["nats-server"]}})
    packages(root, monkeypatch, 10**12)
    path = made(tmp_path, built.id)
    head, parts = sent(path, tmp_path, DEB)
    with pytest.raises(bundle.NeedParts) as needed:
        transaction.stage(root, request(built, bundle=(head,)), built.archive())
    assert needed.value.paths == [DEB]
    staged = transaction.stage(root, request(built, bundle=(head, parts)), built.archive())
    assert staged.token
    assert staged.download_bytes == len(FILES[DEB])


def test_no_room_is_said_before_anything_is_sent(root, tmp_path, monkeypatch, here):
    built = generation(tmp_path, substrates={"deb": {"packages": ["nats-server"]}})
    path = made(tmp_path, built.id)
    packages(root, monkeypatch, 10**12)
    monkeypatch.setattr(space, "for_bundle", lambda size: space.Need("/var/lib", 10**13 + size, 0, "of the bundle"))
    with pytest.raises(space.NoRoom, match="of the bundle"):
        transaction.stage(root, request(built, bundle=tuple(sent(path, tmp_path)[:1])), built.archive())
    assert not os.path.exists(root.state("images/blobs"))


def test_a_stage_without_a_bundle_forgets_the_one_before(root, tmp_path):
    receive(root, sent(made(tmp_path), tmp_path, DEB))
    built = generation(tmp_path)
    transaction.stage(root, request(built), built.archive())
    assert not os.path.exists(bundle.folder_of(root))


@pytest.mark.skipif(os.geteuid() != 0, reason="writes files of other owners")
def test_a_deploy_that_changes_nothing_leaves_nothing_of_its_bundle(root, tmp_path, monkeypatch, here):
    monkeypatch.setattr(system, "make_users", lambda root: None)
    built = generation(tmp_path)
    archives = tuple(sent(made(tmp_path, built.id), tmp_path)[:1])
    transaction.deploy(root, request(built, bundle=archives), built.archive())
    assert not os.path.exists(bundle.folder_of(root))
    assert transaction.stage(root, request(built, bundle=archives)).token == ""
    assert not os.path.exists(bundle.folder_of(root))


def test_a_container_image_of_a_bundle_is_never_fetched_from_a_registry(root, tmp_path, monkeypatch, here):
    built = generation(tmp_path)
    monkeypatch.setattr(images, "fetch", lambda *_a: pytest.fail("it went to a registry"))
    monkeypatch.setattr(images, "can_fetch", lambda: True)
    row = {"digest": f"sha256:{DIGEST}", "service": "x", "repository": "r/x", "user": "u", "environment": {}}
    monkeypatch.setattr(images, "missing", lambda *_a: [row])
    path = made(tmp_path, built.id)
    with pytest.raises(bundle.NeedParts) as needed:
        transaction.stage(root, request(built, bundle=tuple(sent(path, tmp_path)[:1])), built.archive())
    assert needed.value.paths == [f"blobs/sha256/{DIGEST}"]


PARAGRAPH = """\
Package: nats-server
Version: 1:2.10.27-1
Architecture: amd64
Filename: pool/main/n/nats-server/nats-server_2.10.27-1_amd64.deb
SHA256: 00ff"""


def test_the_index_holds_debians_own_paragraphs(tmp_path):
    deb = debs._deb(PARAGRAPH, {"nats-server_1%3a2.10.27-1_amd64.deb": tmp_path})
    assert (deb.filename, deb.sha256) == ("pool/main/n/nats-server/nats-server_2.10.27-1_amd64.deb", "00ff")
    assert debs.index([deb]).decode() == f"{PARAGRAPH}\n\n"
    assert list(resolver._named("'http://m/x.deb' nats-server_1%3a2.10.27-1_amd64.deb 5 SHA256:00\n")) == [
        ("nats-server", "1:2.10.27-1")
    ]
    with pytest.raises(debs.tools.ToolFailed, match="did not fetch"):
        debs._deb(PARAGRAPH, {})


def test_the_repository_is_signed_so_that_debians_verifier_takes_it(tmp_path):
    """The oracle is gpgv, as apt calls it."""
    release = debs.release(b"Package: x\n", "amd64", 1767225600)
    assert hashlib.sha256(b"Package: x\n").hexdigest() in release.decode()
    signed = openpgp.sign(release, 1767225600, tmp_path / "keys")
    assert openpgp.sign(release, 1767225600, tmp_path / "keys") == signed
    assert (tmp_path / "keys/archive_key").stat().st_mode & 0o777 == 0o600
    ring = tmp_path / "ring.gpg"
    armoured = subprocess.run(["gpg", "--dearmor"], input=signed.key, capture_output=True, check=True)
    ring.write_bytes(armoured.stdout)
    for content, accepted in ((signed.release, True), (signed.release.replace(b"kos", b"kox", 1), False)):
        (tmp_path / "InRelease").write_bytes(content)
        done = subprocess.run(["gpgv", "--keyring", ring, tmp_path / "InRelease"], capture_output=True, check=False)
        assert (done.returncode == 0) == accepted


ODD = (
    {"path": "apt/x", "size": 1, "sha256": "0" * 64},
    {"path": "apt/x", "size": "1", "sha256": "0" * 64, "sha3_256": "0" * 64},
    {"path": "apt/x", "size": 1, "sha256": "0" * 64, "sha3_256": "short"},
    "apt/x",
)


def test_the_manifest_says_what_it_was_made_for(tmp_path):
    with bundles.opened(made(tmp_path)) as opened:
        assert [row["id"] for row in opened.manifest["generations"]] == ["a" * 64]
        assert {row["path"] for row in opened.manifest["content"]} == set(FILES)
        newer = json.dumps({**opened.manifest, "format": 2}).encode()
        odd = [json.dumps({**opened.manifest, "content": [row]}).encode() for row in ODD]
    for content in odd:
        with pytest.raises(BundleRefused, match="the bundle's manifest cannot be read"):
            bundle.identity(content)
    with pytest.raises(BundleRefused, match="format 2, and this kOS reads 1: update kOS"):
        bundle.read_manifest(newer)
