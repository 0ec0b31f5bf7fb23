# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who guesses passwords is kept out, a file that nobody should have changed is found, and an alert says so."""

from __future__ import annotations

import json

import pytest
import yaml
from labnodes import wait_for

pytestmark = pytest.mark.long

LAYER = {
    "security": {"intrusion_detection": {"level": "comprehensive"}},
    "services": {"monitoring": ["prometheus", "alertmanager", "node_exporter"]},
}
CLIENT = "fail2ban-client -c /etc/kos/fail2ban"
ALERTS = (
    "python3 -c \"import urllib.request as r; print(r.urlopen('http://127.0.0.1:9093/api/v2/alerts').read().decode())\""
)
# One log-in with a wrong password, over IPv4.
LOG_IN = (
    "printf '#!/bin/sh\\necho wrong\\n' >/run/ask; chmod +x /run/ask; SSH_ASKPASS=/run/ask SSH_ASKPASS_REQUIRE=force"
    " ssh -4 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o PubkeyAuthentication=no"
    " -o NumberOfPasswordPrompts=1 -o ConnectTimeout=20 nobody@{node} true </dev/null 2>&1 | tail -1"
)


@pytest.fixture(scope="module")
def guarded(lab, node, tmp_path_factory):
    layer = tmp_path_factory.mktemp("layers") / "site.yaml"
    layer.write_text(yaml.safe_dump(LAYER))
    lab.deploy(node, "--profile", "development", "--site", str(layer))
    return node


@pytest.fixture(scope="module")
def stranger(lab):
    lab.kai("lab", "up", "stranger")
    yield "stranger"
    lab.kai("lab", "down", "stranger")


def address(lab, node):
    return lab.ssh(node, "hostname -I").split()[0]


def guess(lab, guarded, stranger):
    """Guess a password once more; returns from where."""
    lab.ssh(stranger, LOG_IN.format(node=guarded))
    return address(lab, stranger)


def test_who_guesses_passwords_is_refused_until_somebody_lets_it_in(lab, guarded, stranger):
    assert "Permission denied" in lab.ssh(stranger, LOG_IN.format(node=guarded))
    # sshd itself pauses for who fails in quick succession, so six log-ins may be more connections.
    wait_for(lambda: guess(lab, guarded, stranger) in lab.ssh(guarded, f"{CLIENT} banned"), 180)
    assert "Connection refused" in lab.ssh(stranger, LOG_IN.format(node=guarded))

    # A change of the firewall replaces its own table and nothing else.
    lab.ssh(guarded, "systemctl reload kos-firewall.service")
    assert "Connection refused" in lab.ssh(stranger, LOG_IN.format(node=guarded))
    wait_for(lambda: 'kos_banned_addresses{door="sshd"} 1' in lab.ssh(guarded, "cat /var/lib/kos/metrics/kos.prom"), 90)
    assert lab.healthy(guarded)

    assert lab.ssh(guarded, f"{CLIENT} unban {address(lab, stranger)}") == "1"
    assert "Permission denied" in lab.ssh(stranger, LOG_IN.format(node=guarded))


def test_a_restart_remembers_who_is_banned(lab, guarded):
    lab.ssh(guarded, f"{CLIENT} set sshd banip 192.0.2.7")
    lab.ssh(guarded, "systemctl restart kos-fail2ban.service")
    wait_for(lambda: "192.0.2.7" in lab.ssh(guarded, "nft list set inet kos_fail2ban sshd4"), 60)
    lab.ssh(guarded, f"{CLIENT} unban --all")


def test_the_doctor_sees_a_ban_rule_that_somebody_removed(lab, guarded):
    lab.ssh(guarded, "nft flush chain inet kos_fail2ban input")
    told = lab.kai("doctor", "-i", "inventories/lab", "--limit", guarded, check=False).stdout
    assert "kos-fail2ban.service" in told
    lab.ssh(guarded, "systemctl restart kos-fail2ban.service")


def compared(lab, node):
    return json.loads(lab.ssh(node, "cat /var/lib/kos/integrity.json", check=False) or "{}")


def figure(lab, node, name):
    return lab.ssh(node, f"awk '$1 == \"{name}\" {{print $2}}' /var/lib/kos/metrics/integrity.prom", check=False)


def compare(lab, node):
    lab.ssh(node, "systemctl start kos-aide.service")
    return compared(lab, node)


def test_the_first_deploy_makes_files_known_by_itself(lab, guarded):
    wait_for(lambda: compared(lab, guarded).get("compared"), 900)
    assert compared(lab, guarded)["findings"] == 0
    assert lab.ssh(guarded, "stat -c '%a %U' /var/lib/kos-aide /var/lib/kos-aide/known") == "700 root\n600 root"
    assert "denied" in lab.ssh(guarded, "runuser -u kos-fail2ban -- cat /var/lib/kos-aide/known 2>&1", check=False)


def test_a_file_that_somebody_changed_is_named_and_raises_an_alert(lab, guarded):
    # The lab itself writes into /etc/hosts whenever a node comes or goes.
    lab.ssh(guarded, "echo 'PATH=/tmp:$PATH' >>/etc/profile")
    assert compare(lab, guarded)["findings"] == 1
    assert figure(lab, guarded, "kos_integrity_findings") == "1"
    told = lab.kai("doctor", "-i", "inventories/lab", "--limit", guarded, "--json", check=False).stdout
    assert "/etc/profile has another content" in told
    assert "kai doctor names them" in lab.kai("status", "-i", "inventories/lab", "--limit", guarded, "--json").stdout
    wait_for(lambda: '"FilesChanged"' in lab.ssh(guarded, ALERTS), 180)
    # Undone, it is a finding no longer.
    lab.ssh(guarded, "sed -i '$d' /etc/profile")
    assert compare(lab, guarded)["findings"] == 0


def test_what_apt_installs_becomes_known_by_itself(lab, guarded):
    before = lab.ssh(guarded, "sha256sum </var/lib/kos-aide/known")
    lab.ssh(guarded, "apt-get -qq -y install --no-install-recommends hello")
    wait_for(lambda: lab.ssh(guarded, "sha256sum </var/lib/kos-aide/known") != before, 900)
    assert compare(lab, guarded)["findings"] == 0


def test_what_a_deploy_changes_becomes_known_by_itself(lab, guarded, tmp_path):
    before = lab.ssh(guarded, "sha256sum </var/lib/kos-aide/known")
    layer = tmp_path / "site.yaml"
    asked = {**LAYER["security"]["intrusion_detection"], "attempts": 9}
    layer.write_text(yaml.safe_dump({**LAYER, "security": {"intrusion_detection": asked}}))
    lab.deploy(guarded, "--profile", "development", "--site", str(layer))
    wait_for(lambda: lab.ssh(guarded, "sha256sum </var/lib/kos-aide/known") != before, 900)
    assert compare(lab, guarded)["findings"] == 0


def test_every_unit_of_it_keeps_to_its_sandbox(lab, guarded):
    for name in ("kos-fail2ban", "kos-aide", "kos-aide-accept"):
        said = lab.ssh(guarded, f"systemd-analyze security --no-pager {name}.service | tail -1")
        assert float(said.split(":")[1].split()[0]) <= 2.0, said
