# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a bare node to a healthy one: told beforehand, done as told, and then left alone."""

from __future__ import annotations

import json
import re
import subprocess

from labnodes import BIN, INVENTORY, ROOT

SNAPSHOT = (
    "find /etc /usr /var/lib /srv /opt -xdev -not -path '/var/lib/systemd/*' -not -path '/var/lib/private/*'"
    " -printf '%p %m %u %s %T@ %l\\n' | sort | sha256sum; systemctl list-units --plain --no-legend --state=active"
    " '*.service' | grep -vE 'user@|systemd-(tmpfiles|hostnamed|timedated|localed)' | cut -d' ' -f1 | sort | sha256sum"
)

# The module is apt-get's parent; all three die while packages are half unpacked.
KILL_INSIDE_DPKG = """
timeout 90 sh -c "until [ -e /var/lib/dpkg/info/postgresql-common.list ]; do sleep 0.02; done"
kill -KILL $(ps -o ppid= -p $(pgrep -ox apt-get)); pkill -KILL -x apt-get; pkill -KILL -x dpkg; true
"""


def staged(done):
    """The changes that a run with --json found, without the files' order."""
    events = json.loads(done.stdout)["events"]
    changes = next(event["changes"] for event in events if event["event"] == "stage.end")
    return sorted(json.dumps(change, sort_keys=True) for change in changes)


def test_check_touches_nothing_and_deploy_does_what_it_said(lab, node):
    before = lab.ssh(node, SNAPSHOT)
    told = staged(lab.deploy(node, "--check", "--json"))
    assert lab.ssh(node, SNAPSHOT) == before
    assert staged(lab.deploy(node, "--json")) == told
    assert [row["name"] for row in lab.status(node)["services"] if not row["healthy"]] == []


def test_a_run_that_changes_nothing_says_so_in_few_tasks(lab, deployed):
    done = lab.playbook(deployed)
    assert re.search(rf"{deployed}\s+: ok=\d+\s+changed=0\s", done.stdout), done.stdout
    assert len(re.findall(r"^TASK \[", done.stdout, re.MULTILINE)) <= 25


def test_two_nodes_of_one_kind_have_one_generation(lab, deployed):
    lab.kai("lab", "up", "twin")
    try:
        lab.deploy("twin")
        assert lab.status("twin")["generation"]["id"] == lab.status(deployed)["generation"]["id"]
        addresses = {name: lab.ssh(name, "hostname -I") for name in ("twin", deployed)}
        assert len(set(addresses.values())) == 2
    finally:
        lab.kai("lab", "down", "twin")


def test_killed_inside_dpkg_the_next_run_repairs(lab):
    lab.kai("lab", "up", "broken")
    try:
        argv = [str(BIN / "ansible-playbook"), "site.yml", "-i", INVENTORY, "--limit", "broken"]
        process = subprocess.Popen(
            argv, cwd=ROOT, env=lab.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        lab.ssh("broken", KILL_INSIDE_DPKG)
        assert process.wait(120) != 0
        assert lab.ssh("broken", "dpkg --audit") != ""
        lab.deploy("broken")
        assert lab.healthy("broken")
        assert lab.ssh("broken", "dpkg --audit") == ""
    finally:
        lab.kai("lab", "down", "broken")


def test_what_an_installer_left_pending_is_finished_at_boot(lab, deployed):
    number = lab.status(deployed)["generation"]["number"]
    pending = json.dumps({"generation": number})
    lab.ssh(
        deployed, f"systemctl stop kos-valkey; rm /etc/kos/valkey/valkey.conf; echo '{pending}' > /var/lib/kos/pending"
    )
    assert lab.status(deployed)["generation"]["state"] == "pending"
    lab.ssh(deployed, "systemctl start kos-boot")
    assert lab.status(deployed)["generation"]["state"] == "committed"
    assert lab.healthy(deployed)
