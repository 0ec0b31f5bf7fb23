# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NATS JetStream on three nodes: one of them dies under load, and nothing that was acknowledged is lost."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
import time
from collections import Counter
from pathlib import Path

import nats
import pytest
from labnodes import BIN, ROOT, wait_for

pytestmark = pytest.mark.long
NODES = ["bus1", "bus2", "bus3"]
LOAD = 20  # seconds
WAIT = 60
PATIENCE = 400
SHOW = "python3 -I /etc/kos/nats/cluster.py show"
CLIENT = "PYTHONPATH=/root/bus python3 /root/bus/nats_client.py"
LAYER = """\
services:
  vector_db: null
  graph_db: null
"""


class Bus:
    """Three nodes that are one cluster."""

    def __init__(self, lab, folder):
        self._lab = lab
        self.inventory = folder / "inventory"
        (self.inventory / "group_vars").mkdir(parents=True)
        (self.inventory / "hosts.py").symlink_to(ROOT / "inventories" / "lab" / "hosts.py")
        variables = {"kos_cluster": "kos", "kos_accept_shortfall": ["cpu", "memory", "disk", "gpu", "network"]}
        (self.inventory / "group_vars" / "kos.json").write_text(json.dumps(variables))
        self.layer = folder / "layer.yaml"
        self.layer.write_text(LAYER)

    def deploy(self):
        argv = ("--profile", "federation_node", "--site", str(self.layer), "-i", str(self.inventory))
        return self._lab.kai("deploy", *argv)

    def ssh(self, node, command, check=True):
        return self._lab.ssh(node, command, check=check)

    def client(self, node, *argv):
        return self.ssh(node, f"{CLIENT} {' '.join(argv)}")

    def writing(self, node, seconds, first=1):
        """A writer that runs on `node` meanwhile, of numbers from `first` on."""
        argv = [str(BIN / "kai"), "lab", "ssh", node, f"{CLIENT} write {seconds} {first}"]
        return subprocess.Popen(
            argv, cwd=ROOT, env=self._lab.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )

    def kill(self, node):
        self._lab.kai("lab", "kill", node)

    def up(self, *nodes):
        self._lab.kai("lab", "up", *nodes)

    def seen_by(self, node):
        """The cluster as `node` sees it; empty while it does not answer."""
        return json.loads(self.ssh(node, SHOW, check=False) or "{}")

    def whole(self, node):
        seen = self.seen_by(node)
        return seen.get("healthy") == len(NODES) and seen.get("leader") is not None

    def started(self):
        """The process of each member."""
        return [self.ssh(name, "systemctl show -P MainPID kos-nats") for name in NODES]

    def put_client(self, node):
        """nats-py, the test's client and a certificate for it."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(Path(nats.__file__).parent, "nats")
            archive.add(Path(__file__).parent / "nats_client.py", "nats_client.py")
        unpack = "mkdir -p /root/bus /root/client && base64 -d | tar -xzf - -C /root/bus"
        self._lab.kai("lab", "ssh", node, unpack, input=base64.b64encode(packed.getvalue()).decode())
        self.ssh(node, "sh /etc/kos/certificates/client.sh test /root/client")


@pytest.fixture(scope="module")
def bus(lab, tmp_path_factory):
    """Three nodes of the profile `federation_node`, without its databases."""
    lab.kai("lab", "up", *NODES)
    made = Bus(lab, tmp_path_factory.mktemp("bus"))
    made.deploy()
    for name in NODES:
        made.put_client(name)
    wait_for(lambda: all(made.whole(name) for name in NODES), WAIT)
    made.client("bus1", "create")
    yield made
    lab.kai("lab", "down", *NODES)


def test_only_members_reach_the_routes(lab, bus):
    address = bus.ssh("bus1", "hostname -I").split()[0]
    reach = f"python3 -c \"import socket; socket.create_connection(('{address}', 6222), 3); print('open')\""
    lab.kai("lab", "up", "stranger")
    try:
        assert lab.ssh("stranger", reach, check=False) != "open"
    finally:
        lab.kai("lab", "down", "stranger")
    # The positive control: a member's packets arrive. Without a certificate of the cluster they are of no use.
    assert bus.ssh("bus2", reach) == "open"
    plain = f"printf 'PING\\r\\n' | timeout 5 openssl s_client -quiet -connect {address}:6222 2>&1; true"
    assert "certificate required" in bus.ssh("bus2", plain)


def test_nothing_acknowledged_is_lost_when_a_node_dies(bus):
    leads = json.loads(bus.client("bus1", "leader"))["leader"]
    writer, other = (name for name in NODES if name != leads)
    load = bus.writing(writer, LOAD)
    time.sleep(LOAD / 3)
    bus.kill(leads)
    said, _nothing = load.communicate(timeout=LOAD + WAIT)
    written = json.loads(said)
    acknowledged = {number for number, _moment in written["acknowledged"]}
    late = sum(moment > LOAD * 2 / 3 for _number, moment in written["acknowledged"])
    print(f"{len(acknowledged)} acknowledged in {LOAD} s, {written['repeated']} written again,"
          f" none for {written['gap']} s when the stream's leader died")  # fmt: skip
    assert late > 0, "no number was acknowledged after the leader's death"

    check_all_there(json.loads(bus.client(writer, "read")), acknowledged)

    # It comes back and catches up: then it and one other member are enough to have it all.
    assert bus.seen_by(writer)["healthy"] == 2
    bus.up(leads)
    wait_for(lambda: bus.whole(leads), WAIT)
    wait_for(lambda: leads in level(bus, writer), WAIT)
    bus.kill(writer)
    check_all_there(json.loads(bus.client(leads, "read")), acknowledged)

    # One member alone has no quorum, and acknowledges nothing: an acknowledgement means two copies.
    assert bus.client(leads, "try") == "acknowledged"
    bus.kill(other)
    assert bus.client(leads, "try") == "not acknowledged"
    bus.up(writer, other)
    wait_for(lambda: all(bus.whole(name) for name in NODES), WAIT)


def level(bus, node):
    """The members that have all of the stream."""
    found = json.loads(bus.client(node, "leader"))
    return [found["leader"], *found["level"]]


def check_all_there(stored, acknowledged):
    counted = Counter(stored)
    assert not acknowledged - counted.keys(), sorted(acknowledged - counted.keys())[:20]
    assert not {number for number, times in counted.items() if times > 1 and number}


def test_a_change_for_all_keeps_the_quorum(bus):
    """Deployed to every member at once, and yet a writer is never without an answer for long."""
    bus.layer.write_text(LAYER + "logging: {level: debug}\n")
    started = bus.started()
    load = bus.writing("bus1", PATIENCE, first=10_000_000)
    try:
        done = bus.deploy()
    finally:
        bus.ssh("bus1", "touch /root/bus/stop")
        said, _nothing = load.communicate(timeout=WAIT)
    assert "committed" in done.stdout + done.stderr
    assert all(before != after for before, after in zip(started, bus.started(), strict=True)), "one was not restarted"
    written = json.loads(said)
    print(f"longest wait for an acknowledgement during a rolling change: {written['gap']} s")
    assert written["acknowledged"] and written["gap"] < WAIT / 3
    check_all_there(json.loads(bus.client("bus2", "read")), {number for number, _moment in written["acknowledged"]})
