# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a generation holds to move to while the node runs, and what the node does with it."""

from __future__ import annotations

import json
import os

import pytest
from catalogues import catalogue, configs, machine, manifest
from signatures import request

from ansible_collections.kind.kos.plugins.module_utils.node import (
    fallback,
    files,
    ledger,
    rollback,
    store,
    transaction,
    trust,
)
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.alternatives import alternatives

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="writes files of other owners")
NONE = {"substrates": {"deb": {"packages": []}}}


def service(name, why="it does the same", fallbacks=(), **changes):
    """A service with one file that names every planned service, as a scrape configuration does."""
    return manifest(
        name, **{"provides": ["bus"], **NONE, **changes},
        files=[{"template": "x.j2", "path": f"/etc/kos/{name}/x"}],
        fallbacks=[{"service": other, "why": why} for other in fallbacks],
    )  # fmt: skip


def planned(folder, *services, profile=None):
    templates = {
        f"{row['name']}/templates/x.j2": "{% for s in plan.services %}{{ s.name }} {% endfor %}\n" for row in services
    }
    core = [manifest("status", tier=0, **NONE), manifest("nftables", **NONE)]
    core.append(manifest("caddy", provides=["gateway"], **NONE))
    wanted = assemble.Request(
        "test",
        configs=configs(folder, profile or {"services": {"message_bus": "a"}}),
        services=catalogue(folder, *core, *services, templates=templates),
    )
    return assemble.plan(wanted, machine())


def moves(folder, *services, profile=None):
    plan = planned(folder, *services, profile=profile).plan
    return {entry.service.name: entry.instead for entry in alternatives(plan)}


def test_a_service_moves_to_its_first_fallback_that_can_run(tmp_path):
    cannot = service("b", needs=["internet"])
    profile = {"services": {"message_bus": "a"}, "networking": {"air_gapped": True}}
    assert moves(tmp_path, service("a", fallbacks=["b", "c"]), cannot, service("c"), profile=profile) == {"a": ("c",)}


@pytest.mark.parametrize(
    "orchestration",
    [{"insist": ["message_bus"]}, {"insist": True}, {"fallback": False}, {"fallback": ["cache"]}],
    ids=str,
)
def test_the_profile_may_forbid_it(tmp_path, orchestration):
    services = (service("a", fallbacks=["b"], provides=["message_bus"]), service("b", provides=["message_bus"]))
    profile = {"services": {"message_bus": "a"}}
    assert moves(tmp_path, *services, profile=profile) == {"a": ("b",)}
    assert moves(tmp_path, *services, profile={**profile, "orchestration": orchestration}) == {}


def test_nothing_else_that_was_asked_for_may_be_lost(tmp_path):
    services = (service("a", fallbacks=["b"]), service("b"), service("c", provides=["cache"], requires=["a"]))
    assert moves(tmp_path, *services) == {"a": ("b",)}
    assert moves(tmp_path, *services, profile={"services": {"message_bus": "a", "cache": "c"}}) == {}


def test_there_is_nothing_to_move_to_where_the_fallback_runs_already(tmp_path):
    profile = {"services": {"message_bus": ["a", "b"]}}
    assert moves(tmp_path, service("a", fallbacks=["b"]), service("b"), profile=profile) == {}


def test_it_is_one_step_deep_small_and_the_same_each_time(tmp_path):
    services = (service("a", fallbacks=["b"]), service("b", fallbacks=["c"]), service("c"))
    built = assemble.generation(planned(tmp_path, *services))
    inside = json.loads(built.files["alternatives/a/manifest.json"])
    assert [row["service"] for row in built.manifest["alternatives"]] == ["a"]
    assert inside["alternatives"] == []
    assert inside["instead_of"]["instead"] == ["b"]
    names = [row["name"] for row in inside["services"]]
    assert "b" in names and "a" not in names and "c" not in names
    own = sorted(name for name in built.files if name.startswith("alternatives/"))
    assert "alternatives/a/tree/etc/kos/b/x" in own
    # What is the same in both is there once.
    assert not any(name.endswith("kos-caddy.service") for name in own)
    assert built.id == assemble.generation(planned(tmp_path, *services)).id


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "target"
    (path / "etc").mkdir(parents=True)
    (path / "etc/hostname").write_text("target\n")
    (path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\n")
    return Root(str(path))


@pytest.fixture(autouse=True)
def no_sysusers(monkeypatch):
    monkeypatch.setattr("ansible_collections.kind.kos.plugins.module_utils.node.system.make_users", lambda root: None)


@pytest.fixture
def built(tmp_path):
    return assemble.generation(planned(tmp_path, service("a", fallbacks=["b"]), service("b")))


def move(root, built, **more):
    asked = transaction.Request(built.id, alternative="a", because="a stayed sick through 3 restarts", **more)
    return transaction.deploy(root, asked)


def here(root):
    folder = root.join("/etc/kos")
    return sorted(name for name in os.listdir(folder) if os.path.exists(os.path.join(folder, name, "x")))


@needs_root
def test_a_move_needs_no_new_signature_and_a_deploy_goes_back(root, built):
    transaction.deploy(root, request(built), built.archive())
    assert here(root) == ["a"]
    assert fallback.in_force(root) is None
    move(root, built)
    assert here(root) == ["b"]
    active = store.current(root)
    assert (active.id, active.number, active.alternative) == (built.id, 1, "a")
    row = fallback.in_force(root)
    assert (row["service"], row["instead"]) == ("a", ["b"])
    assert "b instead of a since" in fallback.said(row) and "stayed sick through 3 restarts" in fallback.said(row)
    assert "/etc/kos/a/x" not in ledger.load(root).files
    staged, _health = transaction.deploy(root, request(built))
    assert ("generation", "a fallback is in force") in [(row["kind"], row["why"]) for row in staged.changes]
    assert here(root) == ["a"]
    assert fallback.in_force(root) is None
    assert transaction.stage(root, request(built)).token == ""


@needs_root
def test_a_move_that_is_cut_short_goes_back_to_what_was_named(root, built, monkeypatch):
    transaction.deploy(root, request(built), built.archive())
    monkeypatch.setattr(transaction, "_write_down", lambda *_arguments: 1 / 0)
    with pytest.raises(transaction.SwitchFailed):
        move(root, built)
    assert here(root) == ["a"]
    assert fallback.in_force(root) is None
    assert store.current(root).alternative == ""


@needs_root
def test_a_deploy_that_is_cut_short_goes_back_to_the_fallback(root, built, monkeypatch):
    transaction.deploy(root, request(built), built.archive())
    move(root, built)
    before = fallback.in_force(root)
    with monkeypatch.context() as patch, pytest.raises(transaction.SwitchFailed):
        patch.setattr(transaction, "_write_down", lambda *_arguments: 1 / 0)
        transaction.deploy(root, request(built))
    assert here(root) == ["b"]
    assert fallback.in_force(root) == before


@needs_root
def test_a_move_is_no_place_to_roll_back_to(root, built, tmp_path):
    transaction.deploy(root, request(built), built.archive())
    move(root, built)
    assert rollback.previous_number(root) is None
    assert [(row["number"], row["result"]) for row in store.listing(root)] == [(1, "committed")]


@needs_root
def test_what_a_generation_does_not_hold_is_refused(root, built):
    transaction.deploy(root, request(built), built.archive())
    with pytest.raises(store.Refused, match="has nothing to run instead of caddy"):
        transaction.deploy(root, transaction.Request(built.id, alternative="caddy"))


@needs_root
def test_an_alternative_that_was_altered_on_the_node_is_not_taken(root, built):
    transaction.deploy(root, request(built), built.archive())
    path = root.state("generations", "1", "alternatives", "a", "tree", "etc", "kos", "b", "x")
    files.write(path, b"evil")
    # What was altered has not the id that was signed.
    with pytest.raises(trust.Untrusted, match="carries no signature"):
        move(root, built)
    assert here(root) == ["a"]
