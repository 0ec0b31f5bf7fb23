# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Valkey Cluster: what `WAIT 1` has acknowledged survives a primary's death, and what plain writes lose then."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path

import pytest
from labnodes import BIN, ROOT, wait_for

LAYER = """\
services: {vector_db: null, graph_db: null, monitoring: null}
"""
# More than any machine writes before the primary is killed.
COUNT = 20_000_000
WAIT = 60
SECRET = "systemd-creds decrypt --name=kos-valkey_cluster.password /var/lib/kos/secrets/valkey_cluster.password.cred -"
CLIENT = f"({SECRET}; echo) | python3 /root/valkey_client.py"
CLI = f"export REDISCLI_AUTH=$({SECRET}); valkey-cli -e --user kos --no-auth-warning -h 127.0.0.1"
PORTS = range(7001, 7007)


class Shards:
    """The six servers of one node."""

    def __init__(self, lab, node):
        self._lab = lab
        self._node = node

    def ssh(self, command, check=True):
        return self._lab.ssh(self._node, command, check=check)

    def writing(self, port, prefix, how):
        """A writer that runs meanwhile."""
        argv = [str(BIN / "kai"), "lab", "ssh", self._node, f"{CLIENT} write {port} {prefix} {COUNT} {how}"]
        return subprocess.Popen(
            argv, cwd=ROOT, env=self._lab.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )

    def stored(self, port, prefix, count):
        return set(json.loads(self.ssh(f"{CLIENT} stored {port} {prefix} {count}")))

    def role(self, port):
        """`master`, `slave` and so on, and the port of its primary; nothing while it is away."""
        return self.ssh(f"{CLI} -p {port} role", check=False).split()

    def shard(self):
        """The primary of the tests' one slot, and its replica."""
        slot = int(self.ssh(f"{CLI} -p {self._alive()} cluster keyslot '{{shard}}'"))
        rows = [line.split() for line in self.ssh(f"{CLI} -p {self._alive()} cluster nodes").splitlines()]
        primary = next(row for row in rows if "fail" not in row[2] and any(covers(text, slot) for text in row[8:]))
        replicas = [row for row in rows if row[3] == primary[0]]
        return port_of(primary), port_of(replicas[0])

    def _alive(self):
        return next(port for port in PORTS if self.role(port))

    def kill(self, port):
        """SIGKILL, and it stays away as a dead machine would."""
        folder = f"/run/systemd/system/{unit(port)}.d"
        self.ssh(
            f"mkdir -p {folder} && printf '[Service]\\nRestart=no\\n' > {folder}/away.conf && systemctl daemon-reload"
            f" && systemctl kill --signal=KILL {unit(port)}"
        )

    def bring_back(self, port):
        self.ssh(
            f"rm -r /run/systemd/system/{unit(port)}.d && systemctl daemon-reload"
            f" && systemctl reset-failed {unit(port)} && systemctl start {unit(port)}"
        )
        wait_for(lambda: self.role(port)[:1] == ["slave"] and "connected" in self.role(port), WAIT)

    def taken_over(self, by):
        """Wait until the replica is the primary and the cluster serves every key; the seconds that took."""
        began = time.monotonic()
        wait_for(lambda: self.role(by)[:1] == ["master"] and self.serves(by), WAIT)
        return round(time.monotonic() - began, 1)

    def serves(self, port):
        return "cluster_state:ok" in self.ssh(f"valkey-cli -h 127.0.0.1 -p {port} cluster info", check=False)


def unit(port):
    return f"kos-valkey-cluster-{port - 7000}.service"


def port_of(row):
    return int(row[1].split("@")[0].rpartition(":")[2])


def covers(text, slot):
    first, _dash, last = text.partition("-")
    return text[0] != "[" and int(first) <= slot <= int(last or first)


@pytest.fixture(scope="module")
def shards(lab, tmp_path_factory):
    """A node of the profile `developer_node` without its databases."""
    lab.kai("lab", "up", "shards")
    layer = tmp_path_factory.mktemp("shards") / "layer.yaml"
    layer.write_text(LAYER)
    accepted = ["--accept-shortfall", "cpu,memory,disk,gpu,network"]
    lab.deploy("shards", "--profile", "developer_node", "--site", str(layer), *accepted)
    text = base64.b64encode((Path(__file__).parent / "valkey_client.py").read_bytes()).decode()
    lab.kai("lab", "ssh", "shards", "base64 -d > /root/valkey_client.py", input=text)
    yield Shards(lab, "shards")
    lab.kai("lab", "down", "shards")


def test_six_servers_are_one_cluster_and_form_it_once(lab, shards):
    seen = json.loads(shards.ssh("runuser -u kos-status -- sh /etc/kos/valkey_cluster/show.sh"))
    assert (seen["size"], seen["healthy"], seen["says"]) == (6, 6, "every key is served")
    nodes = shards.ssh(f"{CLI} -p 7001 cluster nodes | cut -d' ' -f1 | sort")
    # As after a crash in the middle: every step may be repeated.
    shards.ssh("rm /var/lib/kos-valkey-cluster/formed; systemctl restart kos-valkey-cluster-form")
    assert shards.ssh(f"{CLI} -p 7001 cluster nodes | cut -d' ' -f1 | sort") == nodes
    assert sorted(shards.role(port)[0] for port in PORTS) == ["master"] * 3 + ["slave"] * 3


def test_what_wait_acknowledged_survives_a_primarys_death(shards):
    primary, replica = shards.shard()
    writers = {how: shards.writing(primary, how, how) for how in ("wait", "plain")}
    time.sleep(3)
    shards.kill(primary)
    seconds = shards.taken_over(by=replica)
    acknowledged = {how: set(json.loads(writer.communicate(timeout=WAIT)[0])) for how, writer in writers.items()}
    lost = {how: numbers - shards.stored(replica, how, max(numbers) + 1) for how, numbers in acknowledged.items()}
    for how in writers:
        print(f"{how}: {len(acknowledged[how])} acknowledged, {len(lost[how])} lost; a new primary after {seconds} s")
        assert 0 < len(acknowledged[how]) < COUNT, "the primary died before or after the writing"
    assert not lost["wait"]
    shards.bring_back(primary)
    assert acknowledged["wait"] <= shards.stored(replica, "wait", max(acknowledged["wait"]) + 1)


def test_a_plain_write_is_lost_where_the_replica_lags(shards):
    """The positive control: it is `WAIT` that the other test proves, and not luck."""
    primary, replica = shards.shard()
    own = shards.ssh(
        f"ss -Htnp state established dport = :{primary} | grep pid=$(systemctl show -P MainPID {unit(replica)}),"
        " | awk '{print $3}'"
    )
    links = [line.rpartition(":")[2] for line in own.splitlines()]
    assert links, "the replica has no connection to its primary"
    rules = "".join(f"add rule inet cut out tcp sport {primary} tcp dport {link} drop\n" for link in links)
    table = "add table inet cut\nadd chain inet cut out { type filter hook output priority 0; }\n"
    try:
        shards.ssh(f"nft -f - <<'EOF'\n{table}{rules}EOF")
        plain = json.loads(shards.ssh(f"{CLIENT} write {primary} lagging 1000 plain"))
        waited = json.loads(shards.ssh(f"{CLIENT} write {primary} doubtful 50 wait"))
        assert len(plain) == 1000 and waited == []
        shards.kill(primary)
        shards.taken_over(by=replica)
    finally:
        shards.ssh("nft delete table inet cut", check=False)
    lost = set(plain) - shards.stored(replica, "lagging", 1000)
    print(f"{len(lost)} of {len(plain)} plain writes were lost, every one of them acknowledged")
    assert lost
    shards.bring_back(primary)
