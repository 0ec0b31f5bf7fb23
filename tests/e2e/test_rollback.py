# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bad change goes back by itself, whoever dies on the way."""

from __future__ import annotations

import json
import subprocess

from labnodes import BIN, INVENTORY, ROOT, wait_for

# The gateway cannot bind sshd's port: valid configuration that never becomes healthy.
BAD_LAYER = "networking: {ports: {frontend: 22}}\n"
GOOD_LAYER = "networking: {ports: {frontend: 8443}}\n"


def layered(tmp_path, text):
    lab_layer = (ROOT / "configs/overrides/lab.yaml").read_text()
    path = tmp_path / "site.yaml"
    path.write_text(lab_layer + text)
    return str(path)


def running(lab, node):
    """What must be the same again: the generation, every unit's state, the files in /etc/kos."""
    units = lab.ssh(node, "systemctl show -P ActiveState kos-caddy kos-postgresql kos-valkey kos-nats kos-firewall")
    files = lab.ssh(node, "find /etc/kos /etc/systemd/system -type f -exec sha256sum {} + | sort -k2 | sha256sum")
    return lab.status(node)["generation"]["id"], units, files, lab.ssh(node, "nft list table inet kos")


def test_a_change_that_does_not_become_healthy_is_taken_back(lab, deployed, tmp_path):
    before = running(lab, deployed)
    done = lab.deploy(deployed, "--site", layered(tmp_path, BAD_LAYER), check=False)
    assert done.returncode == 5, done.stderr
    assert "caddy" in done.stderr and "everything was taken back" in done.stderr
    assert running(lab, deployed) == before
    assert lab.healthy(deployed)
    assert json.loads(lab.kai("doctor", "-i", INVENTORY, "--limit", deployed, "--json").stdout)[deployed] == []


def test_a_controller_that_dies_is_no_matter(lab, deployed, tmp_path):
    before = running(lab, deployed)
    lab.killed_deploy(deployed, layered(tmp_path, GOOD_LAYER), tmp_path, deadline=20)
    assert lab.status(deployed)["generation"]["state"] == "switching"
    wait_for(lambda: lab.status(deployed)["generation"]["state"] == "committed", 90)
    wait_for(lambda: lab.healthy(deployed), 60)
    assert running(lab, deployed) == before


def test_a_power_cut_between_switch_and_commit_is_taken_back(lab, deployed, tmp_path):
    before = running(lab, deployed)
    lab.killed_deploy(deployed, layered(tmp_path, GOOD_LAYER), tmp_path, deadline=600)
    lab.ssh(deployed, "systemctl --force --force reboot", check=False)
    wait_for(lambda: lab.ssh(deployed, "systemctl is-active kos-boot", check=False) == "active", 60)
    wait_for(lambda: lab.healthy(deployed), 60)
    assert lab.status(deployed)["generation"]["state"] == "committed"
    assert running(lab, deployed) == before


def test_a_good_change_is_kept_and_can_be_rolled_back(lab, deployed, tmp_path):
    before = running(lab, deployed)
    lab.deploy(deployed, "--site", layered(tmp_path, GOOD_LAYER))
    assert lab.status(deployed)["generation"]["id"] != before[0]
    assert ":8443" in lab.ssh(deployed, "ss -Htln")
    lab.kai("rollback", "-i", INVENTORY, "--limit", deployed)
    assert running(lab, deployed) == before


def test_drift_is_found_named_and_mended(lab, deployed):
    lab.ssh(
        deployed, "systemctl stop kos-valkey; echo drift >> /etc/kos/valkey/valkey.conf; chmod 666 /etc/kos/nats/*.conf"
    )
    done = lab.kai("doctor", "-i", INVENTORY, "--limit", deployed, "--json", check=False)
    findings = json.loads(done.stdout)[deployed]
    assert done.returncode == 1
    text = json.dumps(findings)
    assert "/etc/kos/valkey/valkey.conf" in text and "kos-valkey.service" in text and "/etc/kos/nats/" in text
    assert all(row["fix"] for row in findings)
    lab.deploy(deployed)
    assert json.loads(lab.kai("doctor", "-i", INVENTORY, "--limit", deployed, "--json").stdout)[deployed] == []


def test_two_runs_at_once_do_not_hurt(lab, deployed, tmp_path):
    layers = [layered(tmp_path, f"networking: {{ports: {{frontend: {port}}}}}\n") for port in (8444,)]
    argv = [str(BIN / "kai"), "deploy", "-i", INVENTORY, "--limit", deployed]
    runs = [
        subprocess.Popen([*argv, *more], cwd=ROOT, env=lab.environment, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for more in (["--site", layers[0]], [])
    ]  # fmt: skip
    outputs = [run.communicate()[0] for run in runs]
    codes = sorted(run.returncode for run in runs)
    assert codes[0] == 0, outputs
    assert codes[1] in (0, 5), outputs
    lab.deploy(deployed)
    assert lab.healthy(deployed)


def test_no_network_a_run_that_changes_nothing_still_works(lab, deployed):
    lab.kai("lab", "network", "cut")
    try:
        assert "nothing to do" in lab.deploy(deployed).stderr
    finally:
        lab.kai("lab", "network", "restore")
