# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node as a whole: judged by systemd, ss, nft, curl and dpkg, not by kOS."""

from __future__ import annotations

import json
import re

# Units that cannot be as tight as the rest, each with its score's reason.
LOOSER = {
    "kos-boot.service": "switches generations as root, once per boot",
    "kos-watch.service": "restarts units and switches to a fallback as root, for a moment at a time",
    "kos-firewall.service": "loads rules with CAP_NET_ADMIN, then ends",
}
SANDBOX_LIMIT = 2.0
# Listeners of Debian itself that a fresh node already has.
DEBIANS_OWN = {"sshd", "systemd-network", "systemd-resolve", "systemd-timesyncd", "init", "systemd"}


def listeners(host):
    """(protocol, address, port, process) of every listening socket."""
    rows = set()
    for line in host.check_output("ss --no-header --listening --tcp --udp --numeric --processes").splitlines():
        columns = line.split()
        address, _, port = columns[4].rpartition(":")
        process = re.search(r'"([^"]+)"', line)
        rows.add((columns[0], address.split("%")[0].strip("[]"), int(port), process[1] if process else ""))
    return rows


def services(manifest):
    """The units that run something; a timer only starts others."""
    return [unit for unit in manifest["units"] if unit["name"].endswith(".service")]


def daemons(manifest):
    """The services that go on running."""
    return [unit for unit in services(manifest) if not unit["oneshot"]]


def test_every_unit_runs_and_starts_at_boot(host, manifest):
    for unit in manifest["units"]:
        if unit["starts"] == "now":
            assert host.check_output(f"systemctl is-active {unit['name']}") == "active", unit["name"]
        # What a timer or a command starts does not start by itself.
        expected = "static" if unit["starts"] == "demand" else "enabled"
        assert host.run(f"systemctl is-enabled {unit['name']}").stdout.strip() == expected, unit["name"]


def test_nothing_has_failed(host):
    assert host.check_output("systemctl --failed --plain --no-legend") == ""


def test_no_service_runs_as_root(host, manifest):
    for unit in daemons(manifest):
        pid = host.check_output(f"systemctl show -P MainPID {unit['name']}")
        assert host.check_output(f"stat -c %U /proc/{pid}").startswith("kos-"), unit["name"]


def test_every_sandbox_is_tight(host, manifest):
    for unit in services(manifest):
        text = host.check_output(f"systemd-analyze security --no-pager {unit['name']} || true")
        score = float(re.search(r"exposure level for \S+: ([0-9.]+)", text)[1])
        assert score <= SANDBOX_LIMIT or unit["name"] in LOOSER, f"{unit['name']}: {score}"


def test_every_unit_has_limits(host, manifest):
    for unit in daemons(manifest):
        limits = host.check_output(f"systemctl cat {unit['name']}")
        assert "MemoryMax=" in limits and "TasksMax=" in limits, unit["name"]


def peers(host):
    """The exposure that the ports of a cluster have, on a member of one."""
    return ["peers"] if json.loads(host.check_output("cat /var/lib/kos/node.json")).get("cluster") else []


def test_only_planned_ports_listen_beyond_loopback(host, manifest):
    opened = {port["port"] for port in manifest["ports"] if port["exposure"] in ("network", *peers(host))}
    for protocol, address, port, process in listeners(host):
        if process in DEBIANS_OWN or address.startswith("127.") or address == "::1":
            continue
        assert port in opened, f"{process} listens on {protocol} {address}:{port}"


def test_every_planned_port_listens(host, manifest):
    found = {(row[0], row[2]) for row in listeners(host)}
    for port in manifest["ports"]:
        if isinstance(port["port"], int) and port["exposure"] in ("node", "network", *peers(host)):
            assert (port["protocol"], port["port"]) in found, port


def test_the_firewall_denies_by_default(host):
    rules = json.loads(host.check_output("nft --json list table inet kos"))["nftables"]
    chains = [row["chain"] for row in rules if "chain" in row]
    inbound = [chain for chain in chains if chain.get("hook") == "input"]
    assert [chain["policy"] for chain in inbound] == ["drop"]


def test_debians_own_daemons_stay_down(host, manifest):
    masked = [row["path"].rpartition("/")[2] for row in manifest["files"] if row.get("link") == "/dev/null"]
    for unit in masked:
        if "@" not in unit:
            assert host.run(f"systemctl is-active {unit}").stdout.strip() != "active", unit


def test_secrets_are_sealed_and_nobody_else_reads_them(host, manifest):
    for entry in manifest["secrets"]:
        sealed = host.file(f"/var/lib/kos/secrets/{entry['service']}.{entry['name']}.cred")
        assert (sealed.exists, sealed.mode, sealed.user) == (True, 0o600, "root")
    assert host.file("/var/lib/kos/secrets").mode == 0o700
    for row in manifest["files"]:
        if "sealed" in row:
            assert host.file(row["path"]).mode == 0o600


def test_the_identity_is_private(host):
    assert host.file("/var/lib/kos/identity/node").mode == 0o600
    assert host.file("/var/lib/kos/identity/node.pub").content_string.startswith("ssh-ed25519 ")


def test_the_generation_holds_nothing_of_this_machine(host):
    name = host.check_output("hostname")
    for word in (name, host.check_output("hostname -I").split()[0]):
        assert host.run(f"grep -rwF -- '{word}' /var/lib/kos/current/tree /var/lib/kos/current/sealed").stdout == ""


def test_data_directories_are_private(host, manifest):
    for user in manifest["users"]:
        folder = host.file(f"/var/lib/{user}")
        if folder.exists:
            assert (folder.user, folder.mode & 0o077) == (user, 0), user
