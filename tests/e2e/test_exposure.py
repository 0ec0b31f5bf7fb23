# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stranger on the network sees, and what nobody may ever see."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path

import pytest
from labnodes import ROOT, wait_for

SCAN = (ROOT / "tests/acceptance/scan.py").read_text()


@pytest.fixture(scope="module")
def canaries():
    """One unmistakable value for every secret of the catalogue."""
    import yaml

    found = {}
    for path in ROOT.glob("services/*/service.yaml"):
        manifest = yaml.safe_load(path.read_text())
        for entry in manifest.get("secrets", []):
            found[f"{manifest['name']}.{entry['name']}"] = "Canary" + secrets.token_hex(13)
    assert found
    return found


@pytest.fixture(scope="module")
def run(lab, node, canaries, tmp_path_factory):
    """A deploy at full verbosity with a canary in every secret; its complete output."""
    folder = tmp_path_factory.mktemp("canary")
    (folder / "vars.json").write_text(json.dumps({"kos_secrets": canaries}))
    seen = folder / "ps"
    watcher = subprocess.Popen(
        ["sh", "-c", f"while sleep 0.05; do ps axww -o args >> {seen}; done"], stdin=subprocess.DEVNULL
    )
    try:
        done = lab.playbook(node, "-vvv", "--diff", "-e", f"@{folder}/vars.json")
        again = lab.playbook(node, "-vvv", "--diff", "-e", f"@{folder}/vars.json")
    finally:
        watcher.kill()
        watcher.wait()
    assert "changed=0" in again.stdout
    return done.stdout + done.stderr + again.stdout + again.stderr, seen.read_text()


def test_the_canaries_are_in_use(lab, node, run, canaries):
    password = canaries["valkey.password"]
    answer = lab.ssh(node, f"printf 'AUTH kos {password}\\nPING\\n' | valkey-cli")
    assert answer.split() == ["OK", "PONG"]


def test_no_secret_is_ever_shown(lab, node, run, canaries):
    output, processes = run
    journal = lab.ssh(node, "journalctl --no-pager -o cat")
    for name, value in canaries.items():
        assert value not in output, f"{name} in Ansible's output"
        assert value not in processes, f"{name} in ps"
        assert value not in journal, f"{name} in the journal"
        for place in ("/var/lib/kos", "/etc", "/var/log", "/tmp", "/var/tmp", "/root", "/run/kos-status"):
            assert lab.ssh(node, f"grep -rlF -- {value} {place} 2>/dev/null || true") == "", f"{name} in {place}"
    cache = Path.home() / ".cache" / "kos"
    for path in cache.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(value.encode() in content for value in canaries.values()), path


@pytest.mark.parametrize("family", ["inet", "inet6"])
def test_a_scan_finds_the_plans_ports_and_no_other(lab, node, run, family):
    lab.kai("lab", "up", "scanner")
    try:
        wanted = json.loads(lab.ssh(node, "cat /var/lib/kos/current/manifest.json"))["ports"]
        opened = {22, *(row["port"] for row in wanted if row["exposure"] == "network" and isinstance(row["port"], int))}
        lines = lab.ssh(node, f"ip -o -f {family} address show scope global").splitlines()
        address = lines[0].split()[3].split("/")[0]
        # A node that has just started has no address of its own in the first second of IPv6.
        look = f"python3 -I - {address}"
        wait_for(lambda: lab.kai("lab", "ssh", "scanner", f"{look} 1 22", input=SCAN).stdout.split() == ["22"], 60)
        # A positive control: without the firewall a listener of its own would be found.
        lab.ssh(node, "systemd-run --quiet --unit=control python3 -m http.server 9999 --bind ::")
        found = lab.kai("lab", "ssh", "scanner", look, input=SCAN).stdout
        assert {int(port) for port in found.split()} == opened
        lab.ssh(
            node,
            "nft add rule inet kos input tcp dport 9999 accept; nft insert rule inet kos input tcp dport 9999 accept",
        )
        assert (
            lab.ssh(
                "scanner",
                f"python3 -c \"import socket; socket.create_connection(('{address}', 9999), 3); print('open')\"",
            )
            == "open"
        )
    finally:
        lab.ssh(node, "systemctl stop control; systemctl restart kos-firewall", check=False)
        lab.kai("lab", "down", "scanner")


def test_the_status_page_can_be_read(lab, node, run):
    # The scan before this has restarted the firewall, and the page is written again twice a minute.
    wait_for(lambda: "services are healthy" in lab.ssh(node, "cat /run/kos-status/index.html"), 150)
    assert "<script" not in lab.ssh(node, "cat /run/kos-status/index.html")
    assert lab.status(node)["storage"]["text"] == "this disk is not encrypted"
    assert all(row["accepted"] for row in lab.status(node)["shortfalls"])
