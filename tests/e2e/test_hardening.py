# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hardened node still is one, nobody is locked out, and level none gives the machine back.

The tests of this module build on each other, in this order. A lab node has a network namespace of its own, so its
sysctls are not this machine's.
"""

from __future__ import annotations

import json

import accepting
import pytest
from labnodes import INVENTORY, ROOT

pytestmark = pytest.mark.long

SYSCTL = "net.ipv4.conf.all.accept_redirects"
OURS = "/etc/ssh/sshd_config.d/01-kos-hardening.conf"
# What hardening sets that is no file of ours, and what its files lead to.
LOOK = (
    "sysctl -n net.ipv4.conf.all.accept_redirects net.ipv4.conf.default.rp_filter;"
    " sysctl -n net.ipv6.conf.all.accept_source_route;"
    " stat -c '%a %n' /etc/crontab /etc/cron.d /etc/ssh/sshd_config;"
    " sha256sum /etc/login.defs /etc/issue /etc/issue.net; sshd -T | sort | sha256sum;"
    " cat /etc/pam.d/common-auth /etc/pam.d/common-account /etc/pam.d/common-password | grep -v '^#' | sha256sum;"
    " for place in /tmp /dev/shm /home;"
    " do findmnt -no OPTIONS $place | tr , '\\n' | grep -xc -e noexec -e nosuid; done;"
    " cat /etc/security/limits.d/*; ls -d /etc/usbguard /etc/needrestart /usr/sbin/{usbguard-daemon,needrestart}"
)
OWN = "install -m 4755 /usr/bin/id /home/id-of-root; runuser -u nobody -- /home/id-of-root -u; rm /home/id-of-root"


@pytest.fixture(scope="module")
def node(lab):
    """Its name is in no rule: the suite looks for what a generation has of its machine."""
    lab.kai("lab", "up", "bastion")
    yield "bastion"
    lab.kai("lab", "down", "bastion")


@pytest.fixture(scope="module")
def before(lab, node):
    """The machine before kOS."""
    return lab.ssh(node, LOOK, check=False)


def layer(folder, level, *off):
    path = folder / "site.yaml"
    lab_layer = (ROOT / "configs/overrides/lab.yaml").read_text()
    path.write_text(f"{lab_layer}security: {{hardening: {{level: {level}, off: [{', '.join(off)}]}}}}\n")
    return str(path)


def deploy(lab, node, folder, level, *off, check=True):
    return lab.deploy(node, "--site", layer(folder, level, *off), check=check)


def sshd(lab, node):
    rows = (line.split(" ", 1) for line in lab.ssh(node, "sshd -T").splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_a_hardened_node_is_a_node(lab, node, before, tmp_path):
    assert before
    deploy(lab, node, tmp_path, "strict")
    assert lab.ssh(node, f"sysctl -n {SYSCTL}") == "0"
    assert sshd(lab, node)["passwordauthentication"] == "no"
    assert "mlkem768x25519-sha256" in sshd(lab, node)["kexalgorithms"]
    assert "pam_faillock" in lab.ssh(node, "cat /etc/pam.d/common-auth")
    assert lab.healthy(node)
    findings = json.loads(lab.kai("doctor", "-i", INVENTORY, "--limit", node, "--json").stdout)
    assert findings[node] == []


def test_the_journal_hands_nothing_on(lab, node):
    """The last line that journald reads counts, and Debian has one too."""
    lines = lab.ssh(node, "systemd-analyze cat-config --no-pager systemd/journald.conf").splitlines()
    assert [line for line in lines if line.startswith("ForwardToSyslog")] == ["ForwardToSyslog=no"]


def test_a_setuid_program_in_a_home_is_nobodys_way_to_root(lab, node):
    assert lab.ssh(node, OWN) == "65534"


def test_what_runs_with_an_updated_library_is_restarted(lab, node):
    """As unattended-upgrades does it: apt installs the library again, and its hook looks who has the old one open."""
    was = lab.ssh(node, "systemctl show --value -p MainPID kos-valkey.service ssh.service").split()
    lab.ssh(node, "DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --reinstall libssl3t64")
    now = lab.ssh(node, "systemctl show --value -p MainPID kos-valkey.service ssh.service").split()
    assert "0" not in {*was, *now} and not {*was} & {*now}
    assert "kos-" not in lab.ssh(node, "needrestart -b -r l")
    assert lab.healthy(node)


def test_a_second_run_changes_nothing(lab, node, tmp_path):
    assert "nothing to do" in deploy(lab, node, tmp_path, "strict").stderr


def test_the_acceptance_suite_of_every_door_passes(lab, node):
    accepting.accept(f"{INVENTORY}/hosts.py", node, "playbook", "--restart", environment=lab.environment)


def test_what_a_container_may_not_set_is_told_with_the_reason(lab, node):
    told = {row["name"]: row["why"] for row in lab.status(node)["not_set_here"]}
    kernels = [why for name, why in told.items() if name.startswith(("kernel/", "fs/", "vm/"))]
    assert kernels and all("shares its kernel" in why for why in kernels)
    assert not [name for name in told if name.startswith("net/ipv4/conf")]


def test_what_sshd_refuses_is_a_sentence_and_changes_nothing(lab, node, tmp_path):
    was = lab.ssh(node, LOOK, check=False), lab.status(node)["generation"]["id"]
    lab.ssh(node, "echo 'NoSuchWord yes' > /etc/ssh/sshd_config.d/99-own.conf")
    done = deploy(lab, node, tmp_path, "strict", "ssh-post-quantum", check=False)
    lab.ssh(node, "rm /etc/ssh/sshd_config.d/99-own.conf")
    said = " ".join(done.stderr.split())
    assert done.returncode == 5
    assert "sshd refuses the configuration that this would make" in said
    assert "/etc/ssh/sshd_config.d/99-own.conf: line 1: Bad configuration option: NoSuchWord" in said
    assert (lab.ssh(node, LOOK, check=False), lab.status(node)["generation"]["id"]) == was


def test_one_rule_switched_off_gives_its_own_settings_back(lab, node, tmp_path):
    deploy(lab, node, tmp_path, "strict", "network-redirects", "ssh-post-quantum", "login-failures")
    assert lab.ssh(node, f"sysctl -n {SYSCTL}") == "1"
    assert lab.ssh(node, "sysctl -n net.ipv4.conf.all.accept_source_route") == "0"
    assert "curve25519-sha256" in sshd(lab, node)["kexalgorithms"]
    assert "pam_faillock" not in lab.ssh(node, "cat /etc/pam.d/common-auth")


def test_what_drifts_is_found_and_mended(lab, node, tmp_path):
    lab.ssh(node, "sysctl -qw net.ipv4.conf.all.accept_source_route=1; chmod 644 /etc/crontab")
    done = lab.kai("doctor", "-i", INVENTORY, "--limit", node, "--json", check=False)
    problems = [row["problem"] for row in json.loads(done.stdout)[node]]
    assert any("net/ipv4/conf/all/accept_source_route: is 1, not 0" in text for text in problems)
    assert any("/etc/crontab: is 0644, not 0600" in text for text in problems)
    deploy(lab, node, tmp_path, "strict", "network-redirects", "ssh-post-quantum", "login-failures")
    assert lab.ssh(node, "stat -c %a /etc/crontab") == "600"


def test_level_none_gives_the_machine_back(lab, node, before, tmp_path):
    deploy(lab, node, tmp_path, "none")
    assert lab.ssh(node, LOOK, check=False) == before
    assert lab.ssh(node, f"ls {OURS} /var/lib/kos/settings.json", check=False) == ""
    assert "nothing to do" in deploy(lab, node, tmp_path, "none").stderr
