# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that hangs, one that stays sick, one that is merely slow, and a node short of memory."""

from __future__ import annotations

import base64
import json

import pytest
from labnodes import INVENTORY, wait_for

BASE = """
services: {message_bus: nats, monitoring: [node_exporter]}
"""
# Looks every 5 s and one restart, so that a test need not wait for minutes.
WATCH = "orchestration: {watch: {interval: 5, restarts: 1, free_memory: %d}%s}\n"
DROP_IN = "/run/systemd/system/%s.d/test.conf"
LOGGED = "journalctl --no-pager -o cat -t kos"
# In place of NATS: its monitoring port answers as it should, two seconds late.
SLOW = (
    "import time,http.server as h;"
    "H=type('H',(h.BaseHTTPRequestHandler,),{'do_GET':lambda s:(time.sleep(2),s.send_response(200),"
    "s.end_headers(),s.wfile.write(b'ok'))});h.ThreadingHTTPServer(('127.0.0.1',8222),H).serve_forever()"
)
# The exporter of NATS, holding 300 MB beside.
HEAVY = "import runpy;x=b'x'*(300<<20);runpy.run_path('/etc/kos/nats/exporter.py',run_name='__main__')"


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """Site layers by name: as usual; short of memory; the same where the bus is insisted upon."""
    folder = tmp_path_factory.mktemp("layers")
    texts = {
        "usual": BASE + WATCH % (0, ""),
        "other": BASE + WATCH % (0, "") + "logging: {level: debug}\n",
        "short": BASE + WATCH % (99, ""),
        "insisted": BASE + WATCH % (99, ", insist: [message_bus]"),
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return {name: str(folder / f"{name}.yaml") for name in texts}


@pytest.fixture(scope="module")
def deployed(lab, node, layers):
    lab.deploy(node, "--site", layers["usual"])
    return node


def override(lab, node, unit, *lines):
    """Run something else in the place of a service, as a bad build of it would."""
    text = base64.b64encode("\n".join(["[Service]", *lines, ""]).encode()).decode()
    path = DROP_IN % unit
    lab.ssh(node, f"mkdir -p $(dirname {path}) && echo {text} | base64 -d > {path} && systemctl daemon-reload")


def mend(lab, node, unit):
    lab.ssh(node, f"rm {DROP_IN % unit} && systemctl daemon-reload")


def metrics(lab, node):
    return lab.ssh(node, "cat /var/lib/kos/metrics/kos.prom")


def restarts(lab, node):
    name = 'kos_service_restarts_total{service="nats"} '
    return int(metrics(lab, node).partition(name)[2].split()[0])


def test_a_process_that_hangs_is_restarted_and_nothing_moves(lab, deployed):
    wait_for(lambda: "kos_service_healthy" in lab.ssh(deployed, "cat /var/lib/kos/metrics/kos.prom", check=False), 60)
    # systemd sees a process that lives.
    lab.ssh(deployed, "systemctl kill --signal=STOP kos-nats.service")
    wait_for(lambda: restarts(lab, deployed) == 1, 90)
    wait_for(lambda: lab.healthy(deployed), 60)
    assert lab.status(deployed)["fallback"] is None
    assert "nats does not answer: restart 1" in lab.ssh(deployed, LOGGED)


def test_what_stays_sick_is_left_for_its_fallback(lab, deployed, layers):
    assert lab.status(deployed)["alternatives"] == [{"service": "nats", "instead": ["valkey"], "lacks": ""}]
    # Its packages were fetched with the deploy: the move needs no network.
    lab.kai("lab", "network", "cut")
    try:
        override(lab, deployed, "kos-nats.service", "ExecStartPre=", "ExecStart=", "ExecStart=/usr/bin/sleep infinity")
        lab.ssh(deployed, "systemctl restart kos-nats.service")
        wait_for(lambda: lab.status(deployed).get("fallback"), 240)
        wait_for(lambda: lab.status(deployed)["generation"]["state"] == "committed", 120)
    finally:
        lab.kai("lab", "network", "restore")
    status = lab.status(deployed)
    names = [row["name"] for row in status["services"]]
    assert "valkey" in names and "nats" not in names and lab.healthy(deployed)
    assert status["fallback"]["because"].startswith("nats stayed sick through 1 restart")
    assert any("valkey instead of nats" in line and "Data was not moved" in line for line in status["concerns"])
    assert lab.ssh(deployed, "systemctl is-active kos-valkey kos-nats", check=False).split() == ["active", "inactive"]
    # What NATS kept is still there for the way back, with the end of its log.
    assert lab.ssh(deployed, "test -d /var/lib/kos-nats && stat -c %a /var/lib/kos/exits/nats.log") == "600"
    wait_for(lambda: 'kos_fallback_active{service="nats",instead="valkey"} 1' in metrics(lab, deployed), 30)
    assert "valkey runs instead of nats" in lab.ssh(deployed, LOGGED)
    found = json.loads(lab.kai("doctor", "-i", INVENTORY, "--limit", deployed, "--json", check=False).stdout)
    assert [row["what"] for row in found[deployed]] == ["nats"] and found[deployed][0]["fix"].startswith("kai deploy")
    # Still sick: a deploy tries it, and leaves the node with what works.
    again = lab.deploy(deployed, "--site", layers["usual"], check=False)
    assert again.returncode == 5, again.stderr
    assert lab.status(deployed)["fallback"]["service"] == "nats" and lab.healthy(deployed)


def test_the_next_deploy_goes_back_to_the_one_that_was_named(lab, deployed, layers):
    mend(lab, deployed, "kos-nats.service")
    lab.deploy(deployed, "--site", layers["usual"])
    status = lab.status(deployed)
    assert status["fallback"] is None and lab.healthy(deployed)
    names = [row["name"] for row in status["services"]]
    assert "nats" in names and "valkey" not in names
    assert "nothing to do" in lab.deploy(deployed, "--site", layers["usual"]).stderr


def test_an_update_that_is_merely_slow_is_taken_back(lab, deployed, layers):
    before = lab.status(deployed)["generation"]["id"]
    slow = f'ExecStart=/usr/bin/python3 -I -c "{SLOW}"'
    override(lab, deployed, "kos-nats.service", "ExecStartPre=", "ExecStart=", slow)
    done = lab.deploy(deployed, "--site", layers["other"], check=False)
    mend(lab, deployed, "kos-nats.service")
    lab.ssh(deployed, "systemctl restart kos-nats.service")
    assert done.returncode == 5, done.stderr
    said = " ".join(done.stderr.split())
    assert "answers, but not as well as it must" in said and "its bound is 1000 ms" in said
    assert lab.status(deployed)["generation"]["id"] == before
    wait_for(lambda: lab.healthy(deployed), 60)


@pytest.mark.long
def test_short_of_memory_what_weighs_most_is_left_unless_the_profile_insists(lab, deployed, layers):
    # The service really holds 300 MB; that the node is short is the layer's bound, above what this machine has free.
    held = f'ExecStart=/usr/bin/python3 -I -c "{HEAVY}"'
    override(lab, deployed, "kos-nats-exporter.service", "ExecStart=", "MemoryMax=600M", held)
    lab.ssh(deployed, "systemctl restart kos-nats-exporter.service")
    lab.deploy(deployed, "--site", layers["insisted"])
    assert lab.status(deployed)["alternatives"] == []
    wait_for(lambda: lab.status(deployed)["watch"]["short_of_memory"], 60)
    assert "This node is short of memory" in lab.status(deployed)["concerns"]
    assert lab.status(deployed)["fallback"] is None
    lab.deploy(deployed, "--site", layers["short"])
    wait_for(lambda: lab.status(deployed).get("fallback"), 120)
    wait_for(lambda: lab.status(deployed)["generation"]["state"] == "committed", 120)
    assert "the node is short of memory: nats uses " in lab.status(deployed)["fallback"]["because"]
    assert lab.healthy(deployed)
