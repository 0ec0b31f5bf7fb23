# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units: images that come out the same, a tree of files that nobody alters unseen, and signers who are counted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import stat
import tarfile
from pathlib import Path

import pytest
from catalogues import ROOT
from typer.testing import CliRunner

from ansible_collections.kind.kos.cli.main import app
from ansible_collections.kind.kos.cli.units import archive, keeping, registry, site_lock
from ansible_collections.kind.kos.cli.units.tools import ToolFailed
from ansible_collections.kind.kos.plugins.module_utils.node import attestation
from ansible_collections.kind.kos.plugins.module_utils.node.attestation import UnitRefused
from ansible_collections.kind.kos.plugins.plugin_utils import container_units, oci, recipes, signing, unit_store
from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.images import Image, load_images
from ansible_collections.kind.kos.plugins.plugin_utils.unit_store import StoreBroken

SERVICES = ROOT / "services"
NAME, REPOSITORY = "valkey", "localhost/kos/valkey"


# --- images ---------------------------------------------------------------------------------------------------------


def tree(order=0, mtime=1700000000, owner=1000):
    """A tar as mmdebstrap makes one, in any order, at any time, by anybody."""
    members = [
        ("./usr/", None, 0o755), ("./usr/bin/", None, 0o755), ("./usr/bin/server", b"ELF", 0o4755),
        ("./etc/passwd", b"mine", 0o644), ("./usr/share/man/man1/server.1", b"page", 0o644),
    ]  # fmt: skip
    random.Random(order).shuffle(members)  # noqa: S311
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content, mode in members:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size, info.mode, info.mtime = len(content or b""), mode, mtime
            info.uid, info.uname = owner, f"user{owner}"
            tar.addfile(info, io.BytesIO(content or b""))
        link, device = tarfile.TarInfo("./usr/bin/also"), tarfile.TarInfo("./dev/null")
        link.type, link.linkname = tarfile.LNKTYPE, "./usr/bin/server"
        device.type = tarfile.CHRTYPE
        tar.addfile(link)
        tar.addfile(device)
    raw.seek(0)
    return tarfile.open(fileobj=raw)


def layer(archive_, leave_out=(), more=()):
    entries = [*oci.left(oci.entries_of(archive_), leave_out), *more]
    written = io.BytesIO()
    return oci.write_layer(entries, 1700000000, written), written.getvalue()


def test_a_layer_does_not_depend_on_order_time_or_owner_of_the_tree():
    one, first = layer(tree(order=1, mtime=1, owner=0))
    other, second = layer(tree(order=2, mtime=1800000000, owner=1000))
    assert one == other
    assert first == second
    assert one.digest == f"sha256:{hashlib.sha256(first).hexdigest()}"
    assert one.size == len(first)


def test_a_layer_gives_nobody_rights_and_holds_no_device():
    _written, raw = layer(tree())
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}
        assert not any(member.mode & (stat.S_ISUID | stat.S_ISGID) for member in members.values())
        assert "dev/null" not in members
        assert tar.extractfile("usr/bin/also").read() == b"ELF"
        assert list(members) == sorted(members)


def test_modes_do_not_depend_on_who_unpacked_the_packages():
    """As an ordinary user tar keeps no sticky bit, and what a umask leaves."""

    def made(directory, program):
        info = tarfile.TarInfo("tmp")
        info.type, info.mode = tarfile.DIRTYPE, directory
        written = io.BytesIO()
        oci.write_layer([oci.Entry(info), oci.file_entry("bin/x", b"", program)], 1, written)
        return written.getvalue()

    assert made(0o1777, 0o755) == made(0o700, 0o700) == made(0o755, 0o4711)
    with tarfile.open(fileobj=io.BytesIO(made(0o755, 0o644))) as tar:
        assert {member.name: member.mode for member in tar} == {"bin": 0o755, "bin/x": 0o644, "tmp": 0o1777}


def test_what_a_recipe_leaves_out_goes_with_all_below_it():
    _written, raw = layer(tree(), ["usr/share/man", "*/passwd", "usr/*/nothing"])
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        assert sorted(tar.getnames()) == ["usr", "usr/bin", "usr/bin/also", "usr/bin/server"]


def test_a_wildcard_stops_at_a_slash():
    """Else `usr/lib/*/security` would take fastapi/security along."""
    entry = oci.file_entry("usr/lib/python3/dist-packages/fastapi/security/base.py", b"")
    assert oci.left([entry], ["usr/lib/*/security"]) == [entry]


def test_a_recipes_file_wins_over_that_of_a_package():
    _written, raw = layer(tree(), more=[oci.file_entry("/etc/passwd", b"kOS's")])
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        assert tar.getnames().count("etc/passwd") == 1
        assert tar.extractfile("etc/passwd").read() == b"kOS's"


@pytest.mark.parametrize("name", recipes.recipe_names(SERVICES))
def test_every_recipe_can_be_read(name):
    recipe = recipes.load_recipe(SERVICES, name)
    assert recipe.packages[0] != "base-files", "the first package gives the image its version"
    assert recipe.entrypoint[0].startswith("/")
    assert not set(recipe.packages) & set(recipe.without)


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'valkey'"):
        recipes.load_recipe(SERVICES, "valky")


# --- the store ------------------------------------------------------------------------------------------------------


def image(store, content=b"program", architecture="amd64"):
    """An image in the store, and its row of a lock."""
    with unit_store.new_blob(store) as stream:
        made = oci.write_layer([oci.file_entry("/usr/bin/server", content, 0o755)], 1, stream)
    config = oci.configuration(architecture, made, 1, {"Entrypoint": ["/usr/bin/server"]}, "a test")
    unit_store.put_blob(store, config)
    made_of = oci.canonical({"pkg:deb/debian/valkey@8?arch=amd64": "0" * 64}).decode()
    stored = unit_store.add_image(store, REPOSITORY, oci.manifest(config, made, {oci.MATERIALS: made_of}), architecture)
    row = {"repository": REPOSITORY, "tag": "8.1", "licence": "BSD-3-Clause", "source": "a test"}
    return Image.model_validate({**row, "digests": {architecture: stored.digest}}), made


def test_the_store_is_an_oci_layout_that_names_images_by_digest(tmp_path):
    row, _layer = image(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    assert json.loads((tmp_path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert [entry["annotations"][unit_store.REFERENCE] for entry in index["manifests"]] == [row.reference("amd64")]
    image(tmp_path)
    assert len(unit_store.images(tmp_path)) == 1, "the same image twice is one image"


def test_the_store_finds_what_was_altered_and_what_is_missing(tmp_path):
    row, made = image(tmp_path)
    digest = row.digest("amd64")
    assert unit_store.verify_image(tmp_path, digest) > made.size
    path = unit_store.blob_path(tmp_path, made.digest)
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(StoreBroken, match="was altered"):
        unit_store.verify_image(tmp_path, digest)
    path.unlink()
    with pytest.raises(StoreBroken, match="has no sha256:"):
        unit_store.verify_image(tmp_path, digest)


def test_a_blob_that_was_not_finished_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="full"), unit_store.new_blob(tmp_path) as stream:
        stream.write(b"half")
        raise OSError("full")
    assert list((tmp_path / "blobs/sha256").iterdir()) == []


# --- units ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A controller of the test's own: its keys, store and lock."""
    monkeypatch.delenv(signing.VARIABLE, raising=False)
    for variable, name in (
        ("XDG_CONFIG_HOME", "config"), (unit_store.VARIABLE, "store"), ("KOS_SITE_LOCK", "images.lock"),
        ("KOS_UNIT_TRUST", "unit_trust.yaml"),
    ):  # fmt: skip
        monkeypatch.setenv(variable, str(tmp_path / name))
    return tmp_path


def another(home, name):
    """Another controller's signer."""
    os.environ["XDG_CONFIG_HOME"] = str(home / name)
    try:
        return signing.signer()
    finally:
        os.environ["XDG_CONFIG_HOME"] = str(home / "config")


def made(home, content=b"program"):
    row, _layer = image(home / "store", content)
    return keeping.make(load_catalogue(SERVICES), NAME, row, home / "store")


def signed(home, *signers):
    unit = made(home)
    for signer in signers:
        unit = keeping.sign(unit, signer, "a test", "security", None)
    return unit


def trusting(home, needed=2, **signers):
    keys = {name: signer.public for name, signer in signers.items()}
    (home / "unit_trust.yaml").write_text(json.dumps({"version": 1, "needed": {"core": needed}, "signers": keys}))
    return container_units.load_trust(SERVICES, home / "unit_trust.yaml", "")


def test_a_units_id_is_that_of_its_files_and_images_alone(home):
    unit = made(home)
    assert unit.id == made(home).id
    assert unit.id == signed(home, signing.signer()).id
    assert unit.id != made(home, b"another program").id


def test_a_statement_says_who_made_it_from_what_when_why_and_for_what(home):
    signer = signing.signer()
    before = signed(home, signer)
    unit = keeping.sign(made(home, b"newer"), signer, "CVE-2026-0001", "security", before)
    said = unit.statement
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {"sha3_256": unit.id} in [row["digest"] for row in said["subject"]]
    assert {"sha256": unit.manifest["images"]["amd64"]["digest"][7:]} in [row["digest"] for row in said["subject"]]
    custody = container_units.custody(unit)
    assert (custody["why"], custody["intent"], custody["replaces"]) == ("CVE-2026-0001", "security", before.id)
    assert custody["by"]["fingerprint"].startswith("SHA256:")
    made_of = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [row["uri"] for row in made_of] == ["pkg:deb/debian/valkey@8?arch=amd64"]


def test_two_of_two_signers_are_enough_and_one_short_is_not(home):
    alice, bob = another(home, "alice"), another(home, "bob")
    known = trusting(home, alice=alice, bob=bob)
    assert container_units.verify(signed(home, alice, bob), known, ["core"]) == ["alice", "bob"]
    for unit in (signed(home, alice), signed(home, alice, alice)):
        with pytest.raises(UnitRefused, match=r"needs 2 trusted signers and has 1 \(alice\)"):
            container_units.verify(unit, known, ["core"])


def test_a_strangers_signature_counts_for_nothing(home):
    alice, mallory = another(home, "alice"), another(home, "mallory")
    with pytest.raises(UnitRefused, match=r"has 1 \(alice\)"):
        container_units.verify(signed(home, alice, mallory), trusting(home, alice=alice), ["core"])
    with pytest.raises(UnitRefused, match="nobody that is trusted here"):
        container_units.verify(signed(home, mallory), trusting(home, 1, alice=alice), ["core"])


def test_the_bar_is_the_higher_of_the_units_own_and_the_catalogues(home):
    """A unit that calls itself `community` to get by with one signer is still the core service that it replaces."""
    alice = another(home, "alice")
    unit = signed(home, alice)
    known = trusting(home, alice=alice)
    assert container_units.verify(unit, known, ["community"]) == ["alice"]
    with pytest.raises(UnitRefused, match="needs 2 trusted signers"):
        container_units.verify(unit, known, ["community", "core"])


def altered(unit, name, change=lambda content: content.replace(b"a", b"b", 1)):
    return container_units.Unit({**unit.files, name: change(unit.files[name])})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("service.yaml", "were altered after it was made"),
        ("templates/valkey.conf.j2", "were altered after it was made"),
        ("images/amd64.json", "were altered after it was made"),
        ("unit.json", "were altered after it was made"),
        ("statement.json", "one of the two was altered"),
    ],
)
def test_each_altered_part_is_refused(home, name, says):
    alice = another(home, "alice")
    unit = signed(home, alice)
    change = (lambda content: content.replace(b"a test", b"a lie")) if name == "statement.json" else None
    other = altered(unit, name, change) if change else altered(unit, name)
    assert other.files != unit.files
    with pytest.raises(UnitRefused, match=says):
        container_units.verify(other, trusting(home, 1, alice=alice), ["core"])


def test_a_signature_of_another_unit_is_refused(home):
    alice = another(home, "alice")
    unit, other = signed(home, alice), keeping.sign(made(home, b"other"), alice, "another test", "install", None)
    path = next(name for name in unit.files if name.startswith(attestation.SIGNATURES))
    swapped = container_units.Unit({**unit.files, path: other.files[path]})
    with pytest.raises(UnitRefused, match="is not one of its statement"):
        container_units.verify(swapped, trusting(home, 1, alice=alice), ["core"])


def test_without_signature_or_statement_a_unit_is_refused(home):
    alice = another(home, "alice")
    unit, known = signed(home, alice), trusting(home, 1, alice=alice)
    bare = {name: content for name, content in unit.files.items() if not name.startswith(attestation.SIGNATURES)}
    with pytest.raises(UnitRefused, match="carries no signature"):
        container_units.verify(container_units.Unit(bare), known, ["core"])
    del bare[attestation.STATEMENT]
    with pytest.raises(UnitRefused, match=r"it has no statement\.json"):
        container_units.verify(container_units.Unit(bare), known, ["core"])


def test_a_generations_signature_is_no_units(home):
    """The namespace keeps the two apart, whatever bytes are signed."""
    signer = signing.signer()
    unit = signed(home, signer)
    path = next(name for name in unit.files if name.startswith(attestation.SIGNATURES))
    foreign = signer.sign_content(unit.files[attestation.STATEMENT], "kos-generation").encode()
    with pytest.raises(UnitRefused, match="is not one of its statement"):
        attestation.check_signers({**unit.files, path: foreign}, {"me": signer.public.rsplit(" ", 1)[0]}, 1)


# --- archives -------------------------------------------------------------------------------------------------------


def kai(*argv):
    return CliRunner().invoke(app, [str(part) for part in argv])


@pytest.fixture
def carried(home):
    """An archive of a unit that alice and bob signed, and who they are."""
    alice, bob = another(home, "alice"), another(home, "bob")
    trusting(home, alice=alice, bob=bob)
    path = home / "valkey.kosunit"
    archive.write(signed(home, alice, bob), home / "store", path)
    return path


def rewritten(path, change):
    """The archive with `change(name, content)` for each member; None leaves it out."""
    members = []
    with tarfile.open(path) as tar:
        for member in tar:
            content = change(member.name, tar.extractfile(member).read())
            if content is not None:
                members.append((member.name, content))
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def imported(home, path, monkeypatch):
    monkeypatch.setenv(unit_store.VARIABLE, str(home / "far"))
    monkeypatch.setenv("KOS_SITE_LOCK", str(home / "far.lock"))
    return kai("unit", "import", path)


def test_an_archive_is_taken_into_store_and_lock(home, carried, monkeypatch):
    done = imported(home, carried, monkeypatch)
    assert done.exit_code == 0, done.output
    row = load_images(SERVICES / "images.lock", home / "far.lock")[NAME]
    assert row.repository == REPOSITORY
    assert unit_store.verify_image(home / "far", row.digest("amd64"))
    assert keeping.load(home / "far", NAME).files == keeping.Unit(dict(archive_files(carried))).files


def archive_files(path):
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.startswith("unit/"):
                yield member.name.removeprefix("unit/"), tar.extractfile(member).read()


def test_equal_units_give_equal_archives(home, carried):
    again = home / "again.kosunit"
    archive.write(container_units.Unit(dict(archive_files(carried))), home / "store", again)
    assert again.read_bytes() == carried.read_bytes()


def blob_of(path, size):
    """The name of the largest or smallest blob."""
    with tarfile.open(path) as tar:
        return size((member for member in tar if member.name.startswith("blobs/")), key=lambda one: one.size).name


REFUSALS = {
    "an image": (lambda path: (blob_of(path, max), lambda content: content[:-1] + b"!"), "an image in .* was altered"),
    "a missing image": (lambda path: (blob_of(path, max), lambda _content: None), "is not complete"),
    "a manifest": (lambda _path: ("unit/service.yaml", lambda content: content + b"\n"), "altered after it was made"),
    "a template": (lambda _path: ("unit/templates/valkey.conf.j2", lambda _c: b"evil"), "altered after it was made"),
    "a statement": (
        lambda _path: ("unit/statement.json", lambda c: c.replace(b"a test", b"a lie")), "one of the two was altered",
    ),
    "a name that climbs out": (lambda _path: ("unit/service.yaml", "unit/../../etc/cron.d/x"), "no part of a unit"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSALS)
def test_an_altered_archive_is_refused_and_nothing_is_kept(home, carried, monkeypatch, what):
    find, says = REFUSALS[what]
    target, change = find(carried)
    if isinstance(change, str):
        with tarfile.open(carried, "a") as tar:
            tar.addfile(tarfile.TarInfo(change))
    else:
        rewritten(carried, lambda name, content: change(content) if name == target else content)
    refused(home, imported(home, carried, monkeypatch), says)


def refused(home, done, says):
    said = " ".join(done.output.split())
    assert done.exit_code == 1, said
    assert re.search(says, said), said
    assert not (home / "far.lock").exists()
    assert [path for path in (home / "far").rglob("*") if path.is_file()] == []


def test_an_archive_without_signature_is_refused(home, carried, monkeypatch):
    rewritten(carried, lambda name, content: None if "/signatures/" in name else content)
    refused(home, imported(home, carried, monkeypatch), "carries no signature")


def test_an_archive_one_signer_short_is_refused(home, carried, monkeypatch):
    first = next(name for name, _content in archive_files(carried) if name.startswith(attestation.SIGNATURES))
    rewritten(carried, lambda name, content: None if name == f"unit/{first}" else content)
    refused(home, imported(home, carried, monkeypatch), "needs 2 trusted signers and has 1")


def test_a_file_that_is_no_archive_is_refused(home, carried, monkeypatch):
    carried.write_bytes(carried.read_bytes()[:700])
    refused(home, imported(home, carried, monkeypatch), "cut short|no unit archive")


def test_a_second_signer_signs_the_archive(home, monkeypatch):
    alice, bob = another(home, "alice"), another(home, "bob")
    trusting(home, alice=alice, bob=bob)
    path = home / "valkey.kosunit"
    archive.write(signed(home, alice), home / "store", path)
    monkeypatch.setenv(signing.VARIABLE, str(bob.path))
    assert kai("unit", "sign", path).exit_code == 0
    done = kai("unit", "verify", path, "--json")
    assert json.loads(done.output)["signed_by"] == ["alice", "bob"]


# --- the command line -----------------------------------------------------------------------------------------------


def test_without_an_image_there_is_no_unit(home):
    done = kai("unit", "sign", NAME)
    assert done.exit_code == 1
    assert "kai unit build valkey" in done.output


def test_inspect_says_where_a_unit_comes_from(home):
    row, _layer = image(home / "store")
    site_lock.enter(home / "images.lock", NAME, row)
    assert kai("unit", "sign", NAME, "--why", "for a test").exit_code == 0
    shown = json.loads(kai("unit", "inspect", NAME, "--json").output)
    assert shown["custody"]["why"] == "for a test"
    assert len(shown["signatures"]) == 1
    assert "for a test" in kai("unit", "inspect", NAME).output
    assert json.loads(kai("unit", "inspect", "--json").output)["units"][0]["name"] == NAME


def test_an_unknown_image_cannot_be_locked(home):
    done = kai("unit", "lock", "qdrnt")
    assert isinstance(done.exception, ConfigurationError)
    assert "did you mean 'qdrant'" in str(done.exception)


def test_what_is_built_here_is_not_looked_for_in_a_registry(home):
    done = kai("unit", "lock", "llama_cpp")
    assert done.exit_code == 1
    assert "kai unit build llama_cpp" in done.output


SAID = {
    "dial tcp: lookup registry.example: no such host": "cannot be reached from here",
    "unauthorized: authentication required": "wants a login: skopeo login",
    "manifest unknown": "has no such tag",
    "toomanyrequests: limit": "asks for patience",
}


@pytest.mark.parametrize("said", SAID)
def test_a_registrys_refusal_is_one_sentence(home, monkeypatch, said):
    program = home / "bin" / "skopeo"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 'FATA[0000] {said}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    done = kai("unit", "lock", "qdrant")
    assert done.exit_code == 1
    assert SAID[said] in " ".join(done.output.split())
    assert not (home / "images.lock").exists()


def test_each_architecture_of_a_tag_gets_its_own_digest(home, monkeypatch):
    rows = [
        {"digest": f"sha256:{digit * 64}", "platform": {"os": system, "architecture": name}}
        for digit, system, name in (("1", "linux", "amd64"), ("2", "linux", "arm64"), ("3", "windows", "amd64"))
    ]
    program = home / "bin" / "skopeo"
    program.parent.mkdir()
    (home / "index.json").write_text(json.dumps({"mediaType": oci.INDEX_TYPE, "manifests": rows}))
    program.write_text(f"#!/bin/sh\ncat {home}/index.json\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    done = kai("unit", "lock", "qdrant")
    assert done.exit_code == 0, done.output
    assert site_lock.read(home / "images.lock")["qdrant"].digests == {
        "amd64": f"sha256:{'1' * 64}",
        "arm64": f"sha256:{'2' * 64}",
    }


def test_a_missing_program_is_named_with_its_package(home, monkeypatch):
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(ToolFailed, match="skopeo is not installed on this controller: apt install skopeo"):
        registry.resolve("qdrant", load_images(SERVICES / "images.lock")["qdrant"])


def test_rows_of_the_site_keep_what_another_architecture_found(home):
    path = home / "images.lock"
    digests = {name: f"sha256:{number * 64}" for name, number in (("amd64", "1"), ("arm64", "2"))}
    row, _layer = image(home / "store")
    for name, digest in digests.items():
        site_lock.enter(path, NAME, row.model_copy(update={"digests": {name: digest}}))
    assert site_lock.read(path)[NAME].digests == digests
    site_lock.enter(path, NAME, row.model_copy(update={"tag": "9", "digests": {"amd64": digests["arm64"]}}))
    assert site_lock.read(path)[NAME].digests == {"amd64": digests["arm64"]}, "another tag is another image"


def test_signers_must_be_keys(home):
    (home / "unit_trust.yaml").write_text("version: 1\nsigners: {alice: ssh-rsa AAAA}\n")
    with pytest.raises(ConfigurationError, match="not an Ed25519 public key"):
        container_units.load_trust(SERVICES, Path(home / "unit_trust.yaml"), "")
