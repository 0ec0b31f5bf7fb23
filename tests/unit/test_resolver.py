# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from catalogues import machine, manifest, plan

from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError

# Its image is nowhere in a lock of this test: refused before it is looked for.
ONLY_VENV = {"substrates": {"venv": {"packages": ["x"]}}}


def names(planned):
    return [service.name for service in planned.plan.services]


def test_every_node_gets_the_core_services(tmp_path):
    assert names(plan(tmp_path, {})) == ["status", "caddy", "nftables"]


def test_a_fallback_is_taken_and_its_reason_told(tmp_path):
    qdrant = manifest("qdrant", **ONLY_VENV, fallbacks=[{"service": "pgvector", "why": "it is packaged"}])
    pgvector = manifest("pgvector", requires=["postgresql"])
    planned = plan(tmp_path, {"services": {"vector_db": "qdrant"}}, qdrant, pgvector, manifest("postgresql"))
    row = next(service for service in planned.plan.services if service.name == "pgvector").as_dict()
    assert row["capability"] == "vector_db"
    assert "qdrant: it comes from PyPI" in row["why"]
    assert "pgvector instead: it is packaged" in row["why"]
    assert "test.yaml" in row["why"]
    assert names(planned).index("postgresql") < names(planned).index("pgvector")


def test_what_cannot_run_is_not_available_and_says_why(tmp_path):
    planned = plan(tmp_path, {"services": {"llm_backends": ["ollama"]}}, manifest("ollama", **ONLY_VENV))
    assert "ollama" not in names(planned)
    assert [(row.capability, row.requested) for row in planned.plan.unavailable] == [("llm_backends", "ollama")]
    assert "PyPI" in planned.plan.unavailable[0].why


def test_fallbacks_that_go_in_a_circle_end(tmp_path):
    one = manifest("one", **ONLY_VENV, fallbacks=[{"service": "two", "why": "x"}])
    two = manifest("two", **ONLY_VENV, fallbacks=[{"service": "one", "why": "y"}])
    planned = plan(tmp_path, {"services": {"cache": "one"}}, one, two)
    assert planned.plan.unavailable[0].requested == "one"


def test_one_service_for_two_capabilities_is_planned_once(tmp_path):
    planned = plan(tmp_path, {"services": {"cache": "valkey", "message_bus": "valkey"}}, manifest("valkey"))
    row = next(service for service in planned.plan.services if service.name == "valkey")
    assert row.capabilities == ("message_bus", "cache")


def test_architecture_decides(tmp_path):
    packaged = manifest("db", substrates={"deb": {"packages": ["db"], "architectures": ["amd64"]}})
    planned = plan(tmp_path, {"services": {"database": "db"}}, packaged, facts=machine(architecture="arm64"))
    assert "not packaged for arm64" in planned.plan.unavailable[0].why


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ([manifest("a", ports=[{"name": "x", "port": 80}]), manifest("b", ports=[{"name": "y", "port": 80}])],
         "tcp port 80 is wanted by a (x) and b (y)"),
        ([manifest("a", units=[{"name": "kos-a.service", "exec": "x", "state_directory": "d"}]),
          manifest("b", units=[{"name": "kos-b.service", "exec": "x", "state_directory": "d"}])],
         "/var/lib/d is wanted by a and b"),
        ([manifest("a", requires=["b"]), manifest("b", requires=["a"])], "requires itself"),
    ],
)  # fmt: skip
def test_conflicts_are_found_on_the_laptop(tmp_path, extra, says):
    with pytest.raises(ConfigurationError) as caught:
        plan(tmp_path, {"services": {"monitoring": ["a", "b"]}}, *extra)
    assert says in str(caught.value)


def test_a_service_that_nobody_describes_names_the_nearest(tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"services.cache: this release's catalogue has no service 'valky' .*'valkey'"
    ):
        plan(tmp_path, {"services": {"cache": "valky"}}, manifest("valkey"))


def test_shortfalls_block_until_accepted_by_name(tmp_path):
    small = plan(tmp_path, {}, facts=machine(cpu=1, memory_mb=500))
    assert [row.what for row in small.shortfalls] == ["cpu", "memory"]
    assert small.blocked
    assert small.as_dict()["preflight"]["ok"] is False


def test_other_systems_are_refused_with_a_sentence(tmp_path):
    planned = plan(tmp_path, {}, facts=machine(os={"id": "debian", "version": "12"}))
    assert planned.blocked
    assert planned.unsupported == (
        "this machine runs debian 12; kOS nodes are Debian 13: reinstall it or name another machine"
    )


def test_localhost_keeps_the_gateway_on_loopback(tmp_path):
    gateway = manifest(
        "caddy",
        provides=["gateway"],
        ports=[{"name": "https", "port": 443, "exposure": "network"}, {"name": "http", "port": 80}],
    )
    networking = {"networking": {"host": "localhost", "ports": {"frontend": 3000}}}
    planned = plan(tmp_path, networking, gateway)
    assert [(port.port, port.exposure) for port in planned.plan.ports] == [(3000, "node")]
