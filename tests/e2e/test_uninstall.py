# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deploy, shrink, roll back, uninstall: at the end the machine is what it was, and on the way only what was asked for.

The tests of this module build on each other, in this order, as a node's life does.
"""

from __future__ import annotations

import base64
import fnmatch
import json
import re
from pathlib import Path

import pytest
import yaml
from labnodes import INVENTORY, ROOT

# nats goes with the lab's own layer: its package, its units, and no service needs it.
SMALLER = "services:\n  monitoring: [prometheus, alertmanager, node_exporter]\n"
# A service of the admin's own, there before kOS: its package, a configuration, and it runs.
THEIRS = "nats-server"
PREPARE = f"apt-get -qq update && apt-get -qq -y install {THEIRS} >/dev/null && systemctl is-active {THEIRS}"
OVERRIDES = "/etc/systemd/system/kos-caddy.service.d"
ARCHIVES = "/var/cache/apt/archives/*.deb"


def footprint(lab, node):
    """Everything of the node that could change, by a script that shares no code with kOS."""
    script = base64.b64encode(Path(__file__).with_name("footprint.py").read_bytes()).decode()
    return json.loads(lab.ssh(node, f"echo {script} | base64 -d | python3 -I -B -"))


def allowed():
    return [row["path"] for row in yaml.safe_load((ROOT / "docs/traces.yaml").read_text())]


def differences(before, after, patterns):
    """What differs between two footprints and matches none of `patterns`."""
    found = []
    for path in sorted({*before["files"], *after["files"]}):
        old, new = before["files"].get(path), after["files"].get(path)
        if old != new and not any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
            found.append((path, old, new))
    for part in ("accounts", "commands"):
        for name, lines in before[part].items():
            # Logins come and go with every question.
            gone, come = ([line for line in each if "session-" not in line] for each in (lines, after[part][name]))
            found += [(name, line, None) for line in gone if line not in come]
            found += [(name, None, line) for line in come if line not in gone]
    return found


def assert_same(before, after, patterns):
    """Fail with one line for each difference."""
    found = differences(before, after, patterns)
    assert not found, "\n".join(map(str, found))


@pytest.fixture(scope="module")
def before(lab, node):
    lab.ssh(node, PREPARE)
    return footprint(lab, node)


def findings(lab, node):
    done = lab.kai("doctor", "-i", INVENTORY, "--limit", node, "--json", check=False)
    return json.loads(done.stdout)[node]


def changes(done):
    events = json.loads(done.stdout)["events"]
    rows = next(event["changes"] for event in events if event["event"] == "stage.end")
    return sorted((row["kind"], row["name"], row["action"]) for row in rows)


def test_a_first_deploy_that_fails_leaves_the_machine_as_it_was(lab, node, before, tmp_path):
    layer = tmp_path / "bad.yaml"
    # A cache, a gateway, certificates, a firewall; the last test takes all of personal_node away.
    layer.write_text("services: {cache: redis, vector_db: null}\nnetworking: {ports: {frontend: 22}}\n")
    done = lab.deploy(node, "--profile", "development", "--site", str(layer), check=False)
    assert done.returncode == 5, done.stderr
    kept = ["/var/lib/kos", "/var/lib/kos/*", ARCHIVES, "/root/.ansible*"]
    assert_same(before, footprint(lab, node), [*allowed(), *kept])


def test_a_service_that_was_there_gives_way(lab, node, before):
    lab.deploy(node)
    assert lab.healthy(node)
    assert (
        lab.ssh(node, f"systemctl is-active {THEIRS}; systemctl is-enabled {THEIRS}", check=False) == "inactive\nmasked"
    )


def test_the_doctor_names_each_drift_and_a_run_mends_exactly_that(lab, node, before):
    lab.ssh(
        node,
        "echo drift >> /etc/kos/valkey/valkey.conf; chmod 666 /etc/kos/caddy/caddy.json; systemctl stop kos-nats;"
        " rm /etc/systemd/system/multi-user.target.wants/kos-valkey.service; usermod -s /bin/bash kos-nats;"
        " nft add rule inet kos input tcp dport 9999 accept;"
        " DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge prometheus-node-exporter >/dev/null;"
        " rm /var/lib/kos/secrets/valkey.exporter.cred;"
        f" mkdir {OVERRIDES}; echo '[Service]' > {OVERRIDES}/x.conf;"
        " apt-mark hold caddy >/dev/null; chmod 755 /var/lib/kos-caddy",
    )
    rows = findings(lab, node)
    text = json.dumps(rows)
    for sentence in (
        "valkey.conf: content differs", "caddy.json: mode is 0666, not 0644", "unit kos-nats.service: does not run",
        "kos-valkey.service: missing", "shell is /bin/bash", "kos-firewall.service: what it made was altered",
        "package prometheus-node-exporter: not installed", "secret valkey.exporter: missing",
        f"overridden by {OVERRIDES}/x.conf",
        "package caddy: is held back", "volume /var/lib/kos-caddy: mode is 0755",
    ):  # fmt: skip
        assert sentence in text, (sentence, rows)
    assert all(row["fix"] for row in rows)
    named = sorted(tuple(row["change"].values()) for row in rows if "change" in row)
    # What only an admin may undo, by the command that the doctor names.
    for row in rows:
        if re.match(r"rm /etc|apt-mark|chmod", row["fix"]):
            lab.ssh(node, row["fix"])
    assert changes(lab.deploy(node, "--json")) == named
    assert findings(lab, node) == []


def test_a_stranger_on_a_port_of_ours_is_named(lab, node, before):
    lab.ssh(
        node, "systemctl stop kos-valkey; systemd-run -q --unit=stranger python3 -m http.server 6379 --bind 127.0.0.1"
    )
    lab.ssh(node, "timeout 20 sh -c 'until ss -Htln | grep -q :6379; do sleep 0.2; done'")
    fixes = [row["fix"] for row in findings(lab, node) if "listens on it" in row["problem"]]
    assert fixes == ["systemctl disable --now stranger.service"]
    lab.ssh(node, "systemctl stop stranger")
    lab.deploy(node)


def test_shrinking_removes_exactly_what_is_no_longer_asked_for(lab, node, before, tmp_path):
    layer = tmp_path / "smaller.yaml"
    layer.write_text(SMALLER)
    full = footprint(lab, node)
    told = changes(lab.deploy(node, "--site", str(layer), "--check", "--json"))
    assert changes(lab.deploy(node, "--site", str(layer), "--json")) == told
    now = footprint(lab, node)
    gone = {path for path in full["files"] if path not in now["files"]}
    assert all("nats" in path for path in gone if not path.startswith(("/var/lib/kos/", "/run/", "/tmp/"))), gone
    # It was there before kOS: it stays, and runs as it did.
    assert lab.ssh(node, f"systemctl is-active {THEIRS}; systemctl is-enabled {THEIRS}") == "active\nenabled"
    assert ("package", THEIRS, "remove") not in told
    kept = json.loads(lab.kai("status", "-i", INVENTORY, "--limit", node, "--json").stdout)[node]["kept_volumes"]
    assert [(row["path"], row["user"]) for row in kept] == [("/var/lib/kos-nats", "kos-nats")]
    assert "nothing to do" in lab.deploy(node, "--site", str(layer)).stderr
    assert findings(lab, node) == []


def test_growing_again_finds_its_data(lab, node, before):
    mark = lab.ssh(node, "stat -c '%u %Y' /var/lib/kos-nats")
    lab.kai("rollback", "-i", INVENTORY, "--limit", node)
    assert lab.healthy(node)
    assert lab.ssh(node, "stat -c %u /var/lib/kos-nats") == mark.split()[0]
    assert lab.ssh(node, f"systemctl is-enabled {THEIRS}", check=False) == "masked"


def test_uninstall_wants_the_name(lab, node, before):
    for given in ([], ["--yes-i-know", "another"]):
        done = lab.kai("uninstall", "-i", INVENTORY, "--limit", node, "--purge", *given, check=False)
        assert done.returncode == 2 and node in done.stderr, done.stderr
    assert lab.healthy(node)


def test_uninstall_leaves_the_machine_as_it_was(lab, node, before):
    lab.kai("uninstall", "-i", INVENTORY, "--limit", node, "--purge", "--yes-i-know", node)
    assert_same(before, footprint(lab, node), allowed())
    assert (
        "there is no kOS"
        in lab.kai("uninstall", "-i", INVENTORY, "--limit", node, "--purge", "--yes-i-know", node).stderr
    )
