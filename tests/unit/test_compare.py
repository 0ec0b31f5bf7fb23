# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why two nodes are not each other's equal: each kind of difference is named, and what may differ is not judged."""

from __future__ import annotations

import copy
import json

import pytest
from typer.testing import CliRunner

from ansible_collections.kind.kos.cli import comparison as command
from ansible_collections.kind.kos.cli.main import app
from ansible_collections.kind.kos.plugins.module_utils.node import composition, history, merkle, store, system
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.plugin_utils import comparison
from ansible_collections.kind.kos.plugins.plugin_utils.generation import Generation

SERVICE = {"name": "valkey", "tier": 1, "substrate": "deb", "user": "kos-valkey", "capabilities": ["cache"],
           "reasons": ["the profile names it"], "probe": {"deadline": 60}}  # fmt: skip
CONF = {"path": "/etc/kos/valkey.conf", "mode": "0644", "owner": "root", "group": "root", "service": "valkey",
        "source": "tree/etc/kos/valkey.conf", "units": []}  # fmt: skip
NATS = {"name": "nats", "tier": 1, "substrate": "deb", "user": "kos-nats", "capabilities": [], "reasons": []}
MANIFEST = {
    "profile": "development", "storage": "local", "services": [SERVICE], "packages": ["valkey-server"],
    "ports": [{"service": "valkey", "name": "valkey", "port": 6379}], "users": ["kos-valkey"], "images": [],
    "files": [CONF], "requires": {"cpu": 1},
}  # fmt: skip
FILES = {"tree/etc/kos/valkey.conf": b"port 6379\n", "node/__main__.py": b"code"}


def made(manifest=MANIFEST, files=FILES, **more):
    """What a node with this generation says of itself."""
    generation = Generation.of(manifest, files)
    return {
        "format": 1,
        "node": "one",
        "machine": {"memory_mb": 2048, "addresses": ["192.0.2.1"]},
        "generation": {
            "number": 1, "id": generation.id, "committed": generation.id, "signed_by": "me", "alternative": "",
            "manifest": generation.manifest,
            "files": {name: merkle.digest(content) for name, content in generation.files.items()},
        },
        "drift": [],
        "packages": {"valkey-server": "8.1", "bash": "5.2"},
        **more,
    }  # fmt: skip


def changed(**more):
    manifest = copy.deepcopy(MANIFEST)
    manifest.update(more)
    return manifest


def found(other, one=None):
    return [(row.kind, row.name, row.one, row.other) for row in comparison.compare(one or made(), other).differences]


def test_nodes_of_other_names_addresses_and_sizes_are_equal():
    other = made(node="two", machine={"memory_mb": 8192, "addresses": ["192.0.2.2"]})
    result = comparison.compare(made(), other)
    assert result.equal and result.generations[0] == result.generations[1] != ""
    assert {(row.name, row.one, row.other) for row in result.machine} == {
        ("name", "one", "two"), ("memory_mb", "2048", "8192"), ("addresses", '["192.0.2.1"]', '["192.0.2.2"]'),
    }  # fmt: skip


def test_packages_of_the_generation_are_judged_and_the_rest_is_told():
    result = comparison.compare(made(), made(packages={"valkey-server": "8.2", "bash": "5.3", "linux-image": "6.12"}))
    assert [(row.kind, row.name, row.one, row.other) for row in result.differences] == [
        ("package", "valkey-server", "8.1", "8.2")
    ]
    assert [(row.name, row.one, row.other) for row in result.base] == [
        ("bash", "5.2", "5.3"), ("linux-image", "not there", "6.12"),
    ]  # fmt: skip
    assert result.packages == (1, 2)
    assert comparison.compare(made(), made(packages={"valkey-server": "8.1"})).equal


def test_a_package_that_is_missing_is_named():
    assert found(made(packages={"bash": "5.2"})) == [("package", "valkey-server", "8.1", "not there")]


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (changed(profile="server"), ("generation", "profile", "development", "server")),
        (changed(storage=None), ("generation", "storage", "local", "null")),
        (
            changed(
                services=[SERVICE, NATS], ports=[*MANIFEST["ports"], {"service": "nats", "name": "nats", "port": 1}]
            ),
            ("service", "nats", "not there", "there"),
        ),
        (
            changed(services=[{**SERVICE, "substrate": "container"}]),
            ("service", "valkey: substrate", "deb", "container"),
        ),
        (changed(packages=["valkey-server", "nats"]), ("packages", "nats", "not there", "there")),
        (
            changed(ports=[{"service": "valkey", "name": "valkey", "port": 6380}]),
            ("ports", "valkey valkey", '{"port": 6379}', '{"port": 6380}'),
        ),
        (changed(users=[]), ("users", "kos-valkey", "there", "not there")),
        (
            changed(files=[{**CONF, "units": ["kos-valkey.service"]}]),
            (
                "file",
                "/etc/kos/valkey.conf: how it is applied",
                '{"service": "valkey", "units": []}',
                '{"service": "valkey", "units": ["kos-valkey.service"]}',
            ),
        ),
        (changed(requires={"cpu": 2}), ("generation", "requires", '{"cpu": 1}', '{"cpu": 2}')),
    ],
)
def test_another_generation_is_named_with_what_makes_it_another(manifest, expected):
    rows = found(made(manifest))
    assert rows[0][:2] == ("generation", "id")
    assert rows[1:] == [expected]


def test_how_a_service_is_run_is_told_apart_without_all_of_its_keys():
    rows = found(made(changed(services=[{**SERVICE, "probe": {"deadline": 90}}])))
    assert [row[:2] for row in rows[1:]] == [("service", "valkey: how it is run")]
    assert rows[1][2] != rows[1][3]


def test_files_of_the_tree_are_named_and_kos_own_code_is_one_point():
    files = {"tree/etc/kos/valkey.conf": b"port 1\n", "node/__main__.py": b"other", "node/new.py": b""}
    assert [row[:2] for row in found(made(files=files))] == [
        ("generation", "id"), ("generation", "kOS's own code"), ("file", "/etc/kos/valkey.conf"),
    ]  # fmt: skip


def test_a_file_is_told_by_mode_owner_and_content():
    (row,) = found(made(changed(files=[{**CONF, "mode": "0600"}])))[1:]
    assert row[:2] == ("file", "/etc/kos/valkey.conf")
    assert row[2].startswith("0644 root:root content ") and row[3].startswith("0600 root:root content ")


def test_what_drifted_on_one_node_alone_is_named_with_that_node():
    row = {"what": "valkey", "problem": "file /etc/kos/valkey.conf: its content differs"}
    assert found(made(drift=[row])) == [("drift", "valkey", "-", row["problem"])]
    assert found(made(), one=made(drift=[row])) == [("drift", "valkey", row["problem"], "-")]
    assert found(made(drift=[row]), one=made(drift=[row])) == []


def test_a_stored_generation_that_was_altered_is_said_to_be():
    other = made(files={**FILES, "tree/etc/kos/valkey.conf": b"port 666\n"})
    other["generation"]["committed"] = made()["generation"]["id"]
    rows = found(other)
    assert rows[0][:3] == ("generation", "stored copy", "-") and "it was altered" in rows[0][3]
    assert ("file", "/etc/kos/valkey.conf") in [row[:2] for row in rows]


def test_a_fallback_in_force_is_a_difference():
    other = made()
    other["generation"]["alternative"] = "valkey"
    assert found(other) == [("generation", "fallback in force", "none", "valkey")]


def test_a_node_without_a_generation_is_no_nodes_equal():
    bare = made(generation=None)
    assert found(bare)[0] == ("generation", "id", made()["generation"]["id"][:12], "none deployed")
    assert not comparison.compare(made(), bare).equal


# --- on the node -----------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(composition.drift, "findings", lambda _root: [{"what": "x", "problem": "y", "fix": "z"}])
    monkeypatch.setattr(composition.status, "signed_by", lambda _root: "me")
    monkeypatch.setattr(composition.join, "addresses", lambda: ["192.0.2.1"])
    monkeypatch.setattr(system, "package_versions", lambda _root: {"bash": "5.2"})
    return Root(str(tmp_path))


def test_a_node_computes_its_id_from_its_own_disk(root):
    generation = Generation.of({**MANIFEST, "services": []}, FILES)
    stored = store.add(root, generation.archive(), generation.id, "signature")
    store.point_current(root, stored.number)
    history.record(root, stored.number, generation.id, "committed")
    said = composition.composition(root)
    assert said["generation"]["id"] == said["generation"]["committed"] == generation.id
    assert said["drift"] == [{"what": "x", "problem": "y"}]
    assert json.loads(json.dumps(said)) == said

    path = root.state("generations", str(stored.number), "tree/etc/kos/valkey.conf")
    with open(path, "a", encoding="utf-8") as stream:
        stream.write("altered\n")
    altered = composition.composition(root)
    assert altered["generation"]["id"] != altered["generation"]["committed"] == generation.id
    named = [(row.kind, row.name) for row in comparison.compare(said, altered).differences]
    assert ("generation", "stored copy") in named and ("file", "/etc/kos/valkey.conf") in named


def test_a_node_that_has_nothing_yet_says_so(root):
    assert composition.composition(root)["generation"] is None


# --- kai compare -----------------------------------------------------------------------------------------------------


@pytest.fixture
def kai(monkeypatch):
    """`kai compare` with nodes that answer as they are told to here."""
    nodes, asked = {}, []

    def ask(target, playbook, variables):
        asked.append((target.inventory, target.limit, playbook, variables))
        names = target.limit.split(",") if target.limit else ["localhost"]
        return {name: nodes[name] for name in names if name in nodes}, [
            f"{name}: unreachable" for name in names if name not in nodes
        ]

    monkeypatch.setattr(command, "ask", ask)

    def run(*argv):
        return CliRunner().invoke(app, ["compare", *map(str, argv)])

    run.nodes, run.asked = nodes, asked
    return run


def test_equal_nodes_end_with_0_and_others_with_1(kai):
    kai.nodes.update(one=made(), two=made(node="two"), three=made(changed(profile="server")))
    done = kai("one", "two", "-i", "lab")
    assert done.exit_code == 0 and "one and two are equal" in done.output
    assert kai.asked == [("lab", "one,two", "ask", {"kos_query": "composition"})]
    done = kai("one", "two", "three", "-i", "lab")
    assert done.exit_code == 1
    assert "one and two are equal" in done.output and "one and three are not equal" in done.output


def test_it_is_there_as_json(kai):
    kai.nodes.update(one=made(), two=made(changed(profile="server"), node="two"))
    done = kai("one", "two", "-i", "lab", "--json")
    (row,) = json.loads(done.stdout)
    assert done.exit_code == 1 and row["equal"] is False
    assert {"kind": "generation", "name": "profile", "one": "development", "other": "server"} in row["differences"]


def test_a_node_is_kept_and_compared_when_it_is_gone(kai, tmp_path):
    kai.nodes["one"] = made()
    assert kai("one", "-i", "lab", "--save", tmp_path / "kept").exit_code == 0
    kai.nodes["two"] = made(node="two")
    del kai.nodes["one"]
    done = kai(tmp_path / "kept/one.json", "two", "-i", "lab")
    assert done.exit_code == 0 and "are equal" in done.output
    # Without an inventory it is this machine.
    kai.nodes["localhost"] = made(changed(profile="server"))
    assert kai(tmp_path / "kept/one.json").exit_code == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["one", "-i", "lab"], "name two nodes"),
        (["one", "two"], "host of an inventory"),
        (["one", "absent.json", "-i", "lab"], "cannot be read"),
    ],
)
def test_wrong_use_is_said(kai, argv, said):
    kai.nodes["one"] = made()
    done = kai(*argv)
    assert done.exit_code == 2 and said in " ".join(done.output.replace("│", " ").split())


def test_a_file_of_something_else_is_refused(kai, tmp_path):
    (tmp_path / "other.json").write_text('{"format": 99}')
    kai.nodes["one"] = made()
    done = kai("one", tmp_path / "other.json", "-i", "lab")
    assert done.exit_code == 2


def test_a_node_that_does_not_answer_ends_it(kai):
    kai.nodes["one"] = made()
    done = kai("one", "two", "-i", "lab")
    assert done.exit_code == 1 and "equal" not in done.output
