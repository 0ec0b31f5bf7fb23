# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Intrusion detection: which node has it, whom it bans, and what the node says of it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml
from catalogues import ROOT, machine

from ansible_collections.kind.kos.plugins.module_utils.node import bans, changes, trail
from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.renderer import render


def planned(tmp_path, settings, profile="development", **facts):
    layer = tmp_path / "site.yaml"
    layer.write_text(yaml.safe_dump(settings))
    return assemble.plan(assemble.Request(profile, site=layer), machine(**facts)).plan


def services(plan):
    return {service.name: service.why for service in plan.services}


def files(plan):
    """The text of every file of the plan's generation, by path."""
    made = render(plan, {})
    return {row["path"]: made.files[row["source"]].decode() for row in made.manifest["files"] if "source" in row}


@pytest.mark.parametrize(
    ("settings", "guarded"),
    [
        ({"networking": {"host": "localhost"}}, False),
        ({"networking": {"host": "localhost"}, "security": {"intrusion_detection": "basic"}}, True),
        ({"networking": {"host": None}}, True),
        ({"networking": {"host": None}, "security": {"intrusion_detection": "none"}}, False),
        ({"networking": {"host": None}, "services": {"intrusion_detection": "crowdsec"}}, True),
    ],
    ids=["on loopback", "asked for", "by default", "asked for nobody", "instead of another"],
)
def test_a_node_that_answers_the_network_is_guarded(tmp_path, settings, guarded):
    assert ("fail2ban" in services(planned(tmp_path, settings))) is guarded


def test_the_plan_says_why_it_is_guarded(tmp_path):
    assert services(planned(tmp_path, {"networking": {"host": None}}))["fail2ban"] == (
        "every node that answers the network has one"
    )


def test_the_jail_is_as_the_profile_says(tmp_path):
    told = {"never_ban": ["192.168.1.0/24", "fd00::7"], "attempts": 3, "within": "1h", "ban": "1d"}
    jail = files(planned(tmp_path, {"security": {"intrusion_detection": {"level": "basic", **told}}}))
    lines = jail["/etc/kos/fail2ban/jail.conf"].splitlines()
    assert {
        "ignoreip = 127.0.0.0/8 ::1 192.168.1.0/24 fd00::7/128", "maxretry = 3", "findtime = 3600", "bantime = 86400",
    } <= set(lines)  # fmt: skip


def test_an_address_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"security\.intrusion_detection\.never_ban"):
        planned(tmp_path, {"security": {"intrusion_detection": {"never_ban": ["my laptop"]}}})


@pytest.mark.parametrize(("gateway", "doors"), [("caddy", {"sshd"}), ("nginx", {"sshd", "gateway"})])
def test_every_jail_has_its_sets_and_every_set_its_rules(tmp_path, gateway, doors):
    """A jail without a set would fail at its first ban, when it is needed."""
    made = files(planned(tmp_path, {"networking": {"host": None}, "services": {"gateway": gateway}}))
    jail, table = made["/etc/kos/fail2ban/jail.conf"], made["/etc/kos/fail2ban/table.nft"]
    assert {name for name in ("sshd", "gateway") if f"[{name}]" in jail} == doors
    for door in ("sshd", "gateway"):
        for family in "46":
            assert (f"set {door}{family} " in table, f"@{door}{family} reject" in table) == (door in doors,) * 2


def test_it_shares_no_table_with_the_firewall(tmp_path):
    """A reload of the firewall replaces its table whole, and would forget every ban."""
    made = files(planned(tmp_path, {"security": {"intrusion_detection": "basic"}}))
    assert "table inet kos {" in made["/etc/kos/nftables/firewall.nft"]
    assert bans.TABLE not in made["/etc/kos/nftables/firewall.nft"]
    assert f"table inet {bans.TABLE} {{" in made["/etc/kos/fail2ban/table.nft"]


LISTING = {
    "nftables": [
        {"metainfo": {"version": "1.1.3"}},
        {"set": {"name": "sshd4", "elem": ["10.0.0.1", "10.0.0.2"]}},
        {"set": {"name": "sshd6", "elem": ["fd00::1"]}},
        {"set": {"name": "gateway4"}},
        {"rule": {"chain": "input"}},
    ]
}


def test_bans_are_counted_per_door(monkeypatch):
    answer = SimpleNamespace(returncode=0, stdout=json.dumps(LISTING).encode())
    monkeypatch.setattr(bans.system, "run", lambda *_argv, **_options: answer)
    assert bans.counted() == {"sshd": 3, "gateway": 0}
    assert 'kos_banned_addresses{door="sshd"} 3' in bans.figures()


def test_where_nothing_bans_there_is_no_figure(monkeypatch):
    """A node without fail2ban must not look like one that has banned nobody."""
    answer = SimpleNamespace(returncode=1, stdout=b"")
    monkeypatch.setattr(bans.system, "run", lambda *_argv, **_options: answer)
    assert bans.figures() == []


@pytest.mark.parametrize("capability", ["intrusion_detection", "integrity", "audit"])
def test_what_detects_is_switched_as_a_part_of_its_own(capability):
    assert changes.part_of(1, {"capabilities": [capability]}) == "intrusion_detection"


AUDITED = {"security": {"intrusion_detection": "comprehensive"}}


@pytest.mark.parametrize("shared", [True, False], ids=["in a container", "on a machine"])
def test_a_container_is_told_that_the_kernel_is_not_its_own(tmp_path, shared):
    plan = planned(tmp_path, AUDITED, shares_kernel=shared)
    told = {row.requested: row.why for row in plan.unavailable}
    here = "it needs a kernel of its own, and this machine is a container, which has its host's"
    assert told.get("auditd") == (here if shared else None)
    assert ("auditd" in [service.name for service in plan.services]) is not shared


STATE = "enabled 1\nfailure 1\npid 71\nrate_limit 0\nbacklog_limit 8192\nlost 3\nbacklog 0\n"


@pytest.mark.parametrize(
    ("said", "written"),
    [(STATE, 1), (STATE.replace("enabled 1", "enabled 0"), 0), (STATE.replace("pid 71", "pid 0"), 0)],
    ids=["written", "switched off", "nobody takes them"],
)
def test_the_trail_is_written_where_the_kernel_reports_and_somebody_listens(monkeypatch, said, written):
    answer = SimpleNamespace(returncode=0, stdout=said.encode())
    monkeypatch.setattr(trail.system, "run", lambda *_argv, **_options: answer)
    assert f"kos_audit_written {written}" in trail.figures()
    assert "kos_audit_lost_records_total 3" in trail.figures()


@pytest.mark.parametrize(("code", "said"), [(4, ""), (0, "You must be root")])
def test_where_the_kernel_says_nothing_of_its_audit_there_is_no_figure(monkeypatch, code, said):
    answer = SimpleNamespace(returncode=code, stdout=said.encode())
    monkeypatch.setattr(trail.system, "run", lambda *_argv, **_options: answer)
    assert trail.figures() == []


def test_every_rule_of_the_audit_has_a_key_and_both_kinds_of_processors_know_its_calls():
    lines = (ROOT / "services/auditd/templates/kos.rules.j2").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert commands[0] == "-D"
    rules = [line.split() for line in commands if line.startswith("-a")]
    assert rules and all(rule[:3] == ["-a", "always,exit", "-F"] and rule[-2] == "-k" for rule in rules)
    assert all("-S" in rule for rule in rules)
    calls = {call for rule in rules for call in rule[rule.index("-S") + 1].split(",")}
    # What arm64 never had.
    assert not calls & {"open", "creat", "chmod", "chown", "rename", "unlink", "rmdir", "mkdir"}
