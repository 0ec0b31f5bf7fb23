# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and subnets that follow from a checkout."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kind.kos.lab import network, state
from ansible_collections.kind.kos.lab.errors import LabError, UsageError
from ansible_collections.kind.kos.lab.identity import Lab, check_node_name, identify, subnet4, subnet6

IDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)


def test_lab_follows_from_the_checkout():
    here, there = identify({}, Path("/srv/one")), identify({}, Path("/srv/two"))
    assert here == identify({}, Path("/srv/one"))
    for name in ("id", "netns", "cgroup", "run", "var"):
        assert getattr(here, name) != getattr(there, name)


def test_environment_names_a_lab_of_its_own():
    assert identify({"KOS_LAB_ID": "mine"}).netns == "kos-mine"


@pytest.mark.parametrize("name", ["../up", "UPPER", "-x", "a" * 21, "a b", "a/b"])
def test_malformed_lab_name_is_refused(name: str):
    with pytest.raises(UsageError, match="KOS_LAB_ID"):
        identify({"KOS_LAB_ID": name})


@pytest.mark.parametrize("name", ["a", "node1", "n-1", "a" * 12])
def test_node_name(name: str):
    assert check_node_name(name) == name
    assert len(f"vb-{name}") <= 15, "the bridge port must fit into an interface name"


@pytest.mark.parametrize("name", ["", "1", "-a", "a-", "a" * 13, "A", "a.b", "a_b", "a/b", "lock "])
def test_malformed_node_name_is_refused(name: str):
    with pytest.raises(UsageError, match="node name"):
        check_node_name(name)


@given(IDS)
def test_subnets_are_private_and_stay(lab_id: str):
    assert subnet4(lab_id) == subnet4(lab_id)
    assert subnet4(lab_id).subnet_of(IPv4Network("10.64.0.0/10")) or subnet4(lab_id).subnet_of(
        IPv4Network("10.128.0.0/10")
    )
    assert subnet4(lab_id).prefixlen == 24
    assert subnet6(lab_id).subnet_of(IPv6Network("fd00::/8"))
    assert subnet6(lab_id).prefixlen == 64


@given(IDS)
def test_subnet_gives_way_to_what_this_machine_uses(lab_id: str):
    wanted = subnet4(lab_id)
    taken = [wanted, wanted.supernet(8)]
    assert not any(subnet4(lab_id, taken).overlaps(network) for network in taken)


def test_machine_that_routes_everything_still_gets_a_subnet():
    assert subnet4("x", [IPv4Network("10.0.0.0/8")]).prefixlen == 24


def test_routes_of_this_machine():
    routes = [
        {"dst": "default", "gateway": "192.0.2.1"},
        {"dst": "10.70.0.0/16", "dev": "vpn0"},
        {"type": "local", "dst": "10.70.1.2", "dev": "vpn0"},
        {"dst": "10.0.0.0/8", "dev": "vpn0"},
    ]
    assert network.routed_subnets(json.dumps(routes)) == [IPv4Network("10.70.0.0/16"), IPv4Network("10.70.1.2/32")]
    assert network.routed_subnets("") == []


def lab_state(*addresses: str) -> state.State:
    nodes = {name: state.Node(name, name, "", "", "") for name in addresses}
    return state.State("x", "/x", "10.91.0.0/24", "fd01::/64", nodes=nodes)


def test_addresses_of_a_node_end_alike():
    assert lab_state().free_addresses() == ("10.91.0.11", "fd01::11")
    assert lab_state("10.91.0.11", "10.91.0.13").free_addresses() == ("10.91.0.12", "fd01::12")


def test_full_lab_is_said():
    every = [str(IPv4Address("10.91.0.0") + number) for number in range(state.FIRST_NODE, state.LAST_NODE + 1)]
    with pytest.raises(LabError, match="full"):
        lab_state(*every).free_addresses()


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Lab:
    monkeypatch.setattr(Lab, "var", property(lambda lab: tmp_path / lab.id))
    return Lab("x", tmp_path)


def test_state_comes_back_as_it_was_saved(lab: Lab):
    saved = lab_state()
    saved.nodes["one"] = state.Node("one", "10.91.0.11", "fd01::11", "/root", "key", "64M", True, False)
    saved.forwards.append(state.Forward("127.0.0.1", 8443, "one", 443, 1))
    state.save(lab, saved)
    assert state.load(lab) == saved


@pytest.mark.parametrize("content", [None, "", "{", '{"format": 0}'])
def test_no_usable_state_is_no_lab(lab: Lab, content: str | None):
    if content is not None:
        lab.var.mkdir()
        (lab.var / "state.json").write_text(content)
    assert state.load(lab) is None
    with pytest.raises(UsageError, match="kai lab up"):
        state.require(lab)


def test_unknown_node_names_the_known_ones():
    with pytest.raises(UsageError, match=r"no node 'three' .*10\.91\.0\.11"):
        lab_state("10.91.0.11").node("three")


def test_labs_of_another_version_keep_their_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(state, "VAR", tmp_path)
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer/state.json").write_text('{"format": 9, "nodes": {"a": {"root": "/r", "unheard": 1}, "b": {}}}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/state.json").write_text("{")
    assert state.roots_in_use() == {"/r"}
