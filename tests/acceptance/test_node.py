# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node as a whole: judged by systemd, ss, nft and the kernel, not by kOS (observe.py asks them)."""

from __future__ import annotations

import pytest

# Units that cannot be as tight as the rest, each with its score's reason.
LOOSER = {
    "kos-boot.service": "switches generations as root, once per boot",
    "kos-watch.service": "restarts units and switches to a fallback as root, for a moment at a time",
    "kos-firewall.service": "loads rules with CAP_NET_ADMIN, then ends",
    "kos-auditd.service": "the kernel reports to root alone",
    "kos-backup.service": "reads the data of every service as root and starts what copies them, then ends",
}
SANDBOX_LIMIT = 2.0
# Listeners of Debian itself that a fresh node already has.
DEBIANS_OWN = {"sshd", "systemd-network", "systemd-resolve", "systemd-timesyncd", "init", "systemd"}
# What a node of each profile can do, whichever service does it.
CAPABILITIES = {
    "personal_node": {"message_bus", "vector_db", "graph_db", "gateway", "firewall"},
    "developer_node": {"message_bus", "vector_db", "graph_db", "monitoring", "gateway", "firewall"},
    "development": {"cache", "vector_db", "gateway", "firewall"},
    "embedded": {"message_bus", "database", "gateway", "firewall"},
    "server": {"message_bus", "vector_db", "graph_db", "monitoring", "logging", "gateway", "load_balancer", "firewall"},
    "standalone": {"database", "vector_db", "gateway", "firewall"},
}
# Capabilities of Linux that any daemon may have: to bind a port below 1024 …
NET_BIND = 1 << 10
# … and that one may have whose work it is.
NET_ADMIN = 1 << 12
OWN = {"kos-fail2ban.service": NET_ADMIN}


def services(manifest):
    """The units that run something; a timer only starts others."""
    return [unit["name"] for unit in manifest["units"] if unit["name"].endswith(".service")]


def daemons(manifest):
    """The services that go on running."""
    return [unit["name"] for unit in manifest["units"] if unit["name"] in services(manifest) and not unit["oneshot"]]


def opened(seen, *exposures):
    """The ports of the plan that are to be seen that far; a member of a cluster has more of them."""
    wide = [*exposures, "peers"] if seen["node"].get("cluster") else exposures
    return [row for row in seen["manifest"]["ports"] if row["exposure"] in wide and isinstance(row["port"], int)]


def test_it_has_the_profile_that_was_asked_for(manifest, profile):
    assert manifest["profile"] == profile


def test_it_can_do_what_its_profile_names(request, manifest, profile):
    if profile not in CAPABILITIES:
        pytest.skip(f"nothing is written down of what a node of {profile} can do")
    taken = set(filter(None, request.config.getoption("--without").split(",")))
    able = {name for service in manifest["services"] for name in service["capabilities"]}
    assert CAPABILITIES[profile] - taken <= able


def test_every_service_is_healthy(seen, manifest):
    asked = seen["status"]["services"]
    assert {row["name"] for row in asked} == {row["name"] for row in manifest["services"]}
    assert [(row["name"], row["detail"]) for row in asked if not row["healthy"]] == []


def test_every_tier_stands_on_those_below_it(manifest):
    """What a service requires is of its own tier or of a lower one, and comes before it."""
    order = [service["name"] for service in manifest["services"]]
    tier = {service["name"]: service["tier"] for service in manifest["services"]}
    assert [tier[name] for name in order] == sorted(tier.values())
    for service in manifest["services"]:
        for name in set(service["requires"]) & set(order):
            assert order.index(name) < order.index(service["name"]), f"{service['name']} requires {name}"


def test_what_is_not_available_has_a_reason(manifest):
    assert [row for row in manifest["unavailable"] if not row["why"]] == []


def test_every_unit_runs_and_starts_at_boot(seen, manifest):
    for unit in manifest["units"]:
        state = seen["units"][unit["name"]]
        if unit["starts"] == "now":
            assert state["ActiveState"] == "active", unit["name"]
        # What a timer or a command starts does not start by itself; of a container's unit systemd makes the rest.
        made = state["FragmentPath"].startswith("/run/systemd/generator/")
        expected = "generated" if made else "static" if unit["starts"] == "demand" else "enabled"
        assert state["UnitFileState"] == expected, unit["name"]


def test_nothing_has_failed(seen):
    assert seen["failed"] == []


def test_debian_finds_its_packages_whole(seen, manifest):
    assert seen["dpkg"] == ""
    assert [name for name in manifest["packages"] if name not in seen["packages"]] == []


def test_no_service_runs_as_root(seen, manifest):
    rows = [row for row in seen["processes"] if row["unit"] not in LOOSER]
    assert {row["unit"] for row in rows} >= set(daemons(manifest))
    assert [(row["unit"], row["name"]) for row in rows if "0" in row["uids"].split()] == []


def test_no_daemon_can_become_more_than_it_is(seen, manifest):
    """No Linux capability but to bind a low port and its own, a filter of system calls, and no way to gain any."""
    contained = {unit for row in manifest["services"] if row["substrate"] == "container" for unit in row["units"]}
    for row in seen["processes"]:
        # Rootless Podman begins with newuidmap, which gains what it needs to map its user's own ids, and no more.
        if row["unit"] in LOOSER or row["unit"] in contained:
            continue
        where = f"{row['name']} of {row['unit']}"
        assert int(row["capabilities"], 16) & ~(NET_BIND | OWN.get(row["unit"], 0)) == 0, where
        assert (row["no_new_privileges"], row["seccomp"]) == ("1", "2"), where


def test_every_sandbox_is_tight(seen, manifest):
    assert set(seen["exposures"]) == set(services(manifest))
    loose = {name: score for name, score in seen["exposures"].items() if score > SANDBOX_LIMIT}
    assert set(loose) <= set(LOOSER), loose


def test_every_unit_has_limits(seen, manifest):
    for name in daemons(manifest):
        state = seen["units"][name]
        assert "infinity" not in (state["MemoryMax"], state["TasksMax"]), name


@pytest.mark.needs("own kernel")
def test_its_kernel_enforces_the_limits(seen, manifest):
    """To the page: the kernel counts memory in those."""
    for name in daemons(manifest):
        state = seen["units"][name]
        memory, tasks = int(state["kernel"]["memory.max"]), int(state["kernel"]["pids.max"])
        assert 0 <= int(state["MemoryMax"]) - memory < 4096 and tasks == int(state["TasksMax"]), name


def test_only_planned_ports_listen_beyond_loopback(seen):
    wanted = {row["port"] for row in opened(seen, "network")}
    for row in seen["listeners"]:
        if row["process"] in DEBIANS_OWN or row["address"].startswith("127.") or row["address"] == "::1":
            continue
        assert row["port"] in wanted, row


def test_every_planned_port_listens(seen):
    found = {(row["protocol"], row["port"]) for row in seen["listeners"]}
    assert [row for row in opened(seen, "node", "network") if (row["protocol"], row["port"]) not in found] == []


def test_the_firewall_denies_by_default(seen):
    chains = [row["chain"] for row in seen["firewall"]["nftables"] if "chain" in row]
    assert [chain["policy"] for chain in chains if chain.get("hook") == "input"] == ["drop"]


def test_debians_own_daemons_stay_down(seen):
    for name in seen["masked"]:
        if "@" not in name:
            assert seen["units"][name]["ActiveState"] != "active", name


def test_its_users_can_do_nothing_but_their_service(seen, manifest):
    assert {row for row in manifest["users"] if row.startswith("kos-")} <= set(seen["accounts"])
    ours = {*seen["accounts"], "systemd-journal"}
    for name, row in seen["accounts"].items():
        assert row["uid"] != 0 and row["locked"] and row["shell"].endswith(("/nologin", "/false")), name
        assert set(row["groups"]) <= ours, f"{name} is also in {row['groups']}"


def test_data_directories_are_private(seen, manifest):
    for row in manifest["volumes"]:
        folder = seen["paths"][row["path"]]
        if folder and not row.get("shared"):
            assert (folder["user"], folder["mode"] & 0o077) == (row["user"], 0), row["path"]
