# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile

import pytest
from catalogues import ROOT, catalogue, configs, machine, manifest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kind.kos.plugins.module_utils.node import merkle, store
from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError

digests = st.binary(max_size=4).map(merkle.digest)
trees = st.dictionaries(st.text(alphabet="abc/", min_size=1, max_size=6), digests, min_size=1, max_size=9)


@given(trees)
def test_the_root_does_not_depend_on_order(tree):
    rows = list(tree.items())
    assert merkle.root(rows) == merkle.root(reversed(rows))


@given(trees, st.data())
def test_the_root_changes_with_any_leaf(tree, data):
    name = data.draw(st.sampled_from(sorted(tree)))
    assert merkle.root(tree.items()) != merkle.root({**tree, name: merkle.digest(b"another")}.items())
    without = {key: value for key, value in tree.items() if key != name}
    assert merkle.root(tree.items()) != merkle.root(without.items())


def test_an_inner_node_does_not_pass_for_a_leaf():
    rows = [("a", merkle.digest(b"1")), ("b", merkle.digest(b"2"))]
    assert merkle.root(rows) != merkle.root([("", merkle.root(rows))])


SERVICE = manifest(
    "db",
    user="kos-db",
    secrets=[{"name": "password"}],
    files=[
        {"template": "db.conf.j2", "path": "/etc/kos/db/db.conf"},
        {"template": "pw.j2", "sealed": "pw", "unit": "kos-db.service"},
    ],
    units=[{"name": "kos-db.service", "exec": "/usr/bin/db", "credentials": ["pw"]}],
)
TEMPLATES = {
    "db/templates/db.conf.j2": "level = {{ settings.logging.level }}\nhost = @kos:hostname@\n",
    "db/templates/pw.j2": "@kos:secret:db.password@\n",
}


def built(folder, templates=TEMPLATES, level="info", service=SERVICE, facts=None):
    request = assemble.Request(
        "test",
        configs=configs(folder, {"services": {"database": "db"}, "logging": {"level": level}}),
        services=catalogue(folder, service, templates=templates),
    )
    return assemble.generation(assemble.plan(request, facts or machine()))


def test_one_profile_has_one_id_wherever_it_is_built(tmp_path):
    ids = {built(tmp_path / name).id for name in ("here", "there")}
    sizes = {built(tmp_path / "size", facts=machine(cpu=cpu, memory_mb=cpu * 4096)).id for cpu in (4, 64)}
    assert len(ids | sizes) == 1
    assert built(tmp_path / "other", level="debug").id not in ids


def test_the_id_does_not_depend_on_the_working_directory_or_hash_seed(tmp_path):
    code = (
        "from ansible_collections.kind.kos.plugins.plugin_utils import assemble;"
        "facts = assemble.facts_from(dict(os=dict(id='debian', version='13'), architecture='amd64', cpu=64,"
        " memory_mb=262144, disk_gb=4000), 'x');"
        "print(assemble.generation(assemble.plan(assemble.Request('personal_node'), facts)).id)"
    )
    found = set()
    for seed, folder in (("0", tmp_path), ("1", ROOT)):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "collections")}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_equal_generations_travel_as_equal_bytes_and_prove_themselves(tmp_path):
    first, second = built(tmp_path / "a"), built(tmp_path / "b")
    assert first.archive() == second.archive()
    assert store.verified_files(first.archive(), first.id)["manifest.json"] == first.files["manifest.json"]


def test_tokens_stay_tokens_in_the_generation(tmp_path):
    files = built(tmp_path).files
    assert files["tree/etc/kos/db/db.conf"] == b"level = info\nhost = @kos:hostname@\n"
    assert files["sealed/kos-db.service.pw"] == b"@kos:secret:db.password@\n"


def test_a_value_that_looks_like_a_template_stays_a_value(tmp_path):
    service = manifest("db", files=[{"template": "x.j2", "path": "/etc/kos/db/x"}])
    request = assemble.Request(
        "test",
        configs=configs(tmp_path, {"services": {"database": "db"}, "federation": {"trust_network": "{{ 7 * 7 }}"}}),
        services=catalogue(
            tmp_path, service, templates={"db/templates/x.j2": "{{ settings.federation.trust_network }}"}
        ),
    )
    assert assemble.generation(assemble.plan(request, machine())).files["tree/etc/kos/db/x"] == b"{{ 7 * 7 }}"


@pytest.mark.parametrize("text", ["{{ nobody }}", "{% if %}", "{{ ''.__class__.__mro__ }}"])
def test_a_template_that_fails_names_itself(tmp_path, text):
    with pytest.raises(ConfigurationError, match=r"services/db/templates/db.conf.j2"):
        built(tmp_path, templates={**TEMPLATES, "db/templates/db.conf.j2": text})


def test_a_template_never_leaves_its_folder(tmp_path):
    service = {**SERVICE, "files": [{"template": "../../../../etc/passwd", "path": "/x"}]}
    with pytest.raises(ConfigurationError, match="points outside"):
        built(tmp_path, service=service)


def test_the_units_are_sandboxed_and_read_their_credentials(tmp_path):
    unit = built(tmp_path).files["tree/etc/systemd/system/kos-db.service"].decode()
    assert "User=kos-db\n" in unit
    assert "LoadCredentialEncrypted=pw:/etc/credstore.encrypted/kos-db.pw\n" in unit


def archive_of(**members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("__", "../"))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def test_what_is_not_the_generation_it_claims_to_be_is_refused(tmp_path):
    generation = built(tmp_path)
    flipped = bytearray(generation.archive())
    flipped[len(flipped) // 2] ^= 1
    for archive, says in (
        (b"no archive", "cannot be read"),
        (archive_of(a=b"x"), "not the generation"),
        (archive_of(__etc=b"x"), "not a plain file"),
        (bytes(flipped), None),
        (generation.archive()[:500], "cannot be read"),
    ):
        with pytest.raises(store.Refused, match=says):
            store.verified_files(archive, generation.id)
