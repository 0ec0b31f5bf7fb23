# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore drill: real data, two repositories, the node destroyed, and the same data on a fresh one."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from labnodes import BIN, INVENTORY, ROOT

VAULT = "vault"
OLD, NEW = "old", "new"
LOCAL = "/srv/backup"
SFTP_SERVER = """
set -e
useradd --no-create-home --shell /usr/sbin/nologin keeper
install -d -m 0755 /srv/sftp
install -d -o keeper -m 0700 /srv/sftp/nodes
cat >/etc/ssh/sshd_config.d/keeper.conf <<'END'
Match User keeper
    ChrootDirectory /srv/sftp
    ForceCommand internal-sftp
    AuthorizedKeysFile /etc/ssh/keeper_keys
    AllowTcpForwarding no
    X11Forwarding no
END
touch /etc/ssh/keeper_keys
systemctl reload ssh
"""
# The repository stands still as soon as restic has locked it: then neither restic nor the collector can tidy up.
STAND_STILL = """
systemd-run -q --unit=stand-still timeout 60 sh -c \
  'until ls /srv/sftp/nodes/old/locks | grep -qxE "[0-9a-f]{64}"; do sleep 0.005; done; pkill -STOP -u keeper'
"""
STANDS_STILL = "timeout 60 sh -c 'while systemctl is-active -q stand-still; do sleep 0.1; done'"
KILL = """
grep -qx backup /run/kos-backup/arguments
systemctl kill --signal=KILL --kill-whom=main kos-restic kos-backup
timeout 60 sh -c 'until systemctl show -P ActiveState kos-backup | grep -qE "^(failed|inactive)$"; do sleep 0.1; done'
"""
FLIP_A_BYTE = """
pack=$(find /srv/backup/data -type f -size +1k | head -1)
python3 - "$pack" <<'END'
import os, sys
os.chmod(sys.argv[1], 0o600)
with open(sys.argv[1], "r+b") as stream:
    stream.seek(200)
    byte = stream.read(1)
    stream.seek(200)
    stream.write(bytes([byte[0] ^ 1]))
END
"""


def oracle(lab, node, verb):
    packed = base64.b64encode((Path(__file__).parent / "oracle.py").read_bytes()).decode()
    return lab.ssh(node, f"echo {packed} | base64 -d | python3 - {verb}")


def snapshots(lab, node):
    return json.loads(lab.kai("backup", "--list", "-i", INVENTORY, "--limit", node, "--json").stdout)[node]


def backup(lab, node, check=True):
    return lab.kai("backup", "-i", INVENTORY, "--limit", node, "--json", check=check)


def authorise(lab, node):
    answer = lab.kai("backup", "key", "public", "-i", INVENTORY, "--limit", node, "--json").stdout
    lab.ssh(VAULT, f"echo '{json.loads(answer)[node]}' >> /etc/ssh/keeper_keys")


RUNNING = "kos-nats kos-prometheus kos-postgresql kos-valkey"


def nothing_left_behind(lab, node):
    assert lab.ssh(node, "find /var/lib/kos/staging -mindepth 1; find /run/kos-backup -type f") == ""
    assert lab.ssh(node, f"systemctl is-active {RUNNING}").split() == ["active"] * 4


@pytest.fixture(scope="module")
def layer(lab, tmp_path_factory):
    """The lab's layer, with a repository on another node and a copy on the node itself."""
    lab.kai("lab", "up", VAULT, OLD)
    lab.ssh(VAULT, SFTP_SERVER)
    address = lab.ssh(VAULT, "hostname -I").split()[0]
    path = tmp_path_factory.mktemp("backup") / "site.yaml"
    path.write_text(
        (ROOT / "configs/overrides/lab.yaml").read_text()
        + f"backup:\n  repository: ['sftp:keeper@{address}:/nodes/old', {LOCAL}]\n"
        + "  strategy: multi_region\n  retention: {last: 4, daily: 2}\n"
    )
    yield str(path)
    lab.kai("lab", "down", VAULT, check=False)


@pytest.fixture(scope="module")
def old(lab, layer):
    """The node that will be lost, with real data in every service."""
    lab.deploy(OLD, "--site", layer)
    oracle(lab, OLD, "write")
    return OLD


def test_a_repository_that_cannot_be_reached_is_said_and_leaves_nothing(lab, old):
    done = backup(lab, old, check=False)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr and "kai backup key public" in done.stderr
    nothing_left_behind(lab, old)
    status = lab.kai("status", "-i", INVENTORY, "--limit", old).stdout
    assert "Backup failed" in status and "kai backup key export" in status


def test_every_service_is_in_one_snapshot_of_one_moment(lab, old):
    authorise(lab, old)
    record = json.loads(backup(lab, old).stdout)[old]
    planned = json.loads(lab.ssh(old, "cat /var/lib/kos/current/manifest.json"))["services"]
    assert set(record["services"]) == {row["name"] for row in planned if row["backup"]}
    assert all(row["ok"] and row["digest"] for row in record["services"].values())
    assert record["window_seconds"] < 20
    nothing_left_behind(lab, old)
    for place in (LOCAL, "/srv/sftp/nodes/old"):
        node = old if place == LOCAL else VAULT
        assert lab.ssh(node, f"grep -rlE 'people|Charles|order 1|BEGIN EC' {place} | wc -l") == "0"


def test_no_secret_is_an_argument_or_readable(lab, old):
    key = lab.ssh(old, "systemd-creds decrypt --name=kos-restic.password /var/lib/kos/secrets/restic.password.cred -")
    watch = (
        "systemctl start --no-block kos-backup; for n in $(seq 60); do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"
        f" 2>/dev/null | tr '\\0' ' ' | grep -c {key[:20]}'[{key[20]}]'; sleep 0.05; done | sort -u"
    )
    assert lab.ssh(old, watch) == "0"
    lab.ssh(old, "systemctl start kos-backup")
    readable = "runuser -u kos-valkey -- sh -c 'ls /var/lib/kos/staging; ls /run/kos-backup; cat /var/lib/kos-backup/*'"
    assert lab.ssh(old, f"{readable} 2>/dev/null", check=False) == ""
    assert lab.ssh(old, f"journalctl -o cat | grep -c {key[:20]}", check=False) == "0"


def test_two_at_once_are_both_served(lab, old):
    argv = [str(BIN / "kai"), "backup", "-i", INVENTORY, "--limit", old]
    runs = [
        subprocess.Popen(argv, cwd=ROOT, env=lab.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]  # fmt: skip
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    nothing_left_behind(lab, old)


def test_killed_half_way_the_next_run_does_not_trip(lab, old):
    before = len(snapshots(lab, old))
    lab.ssh(VAULT, STAND_STILL)
    lab.ssh(old, "systemctl start --no-block kos-backup")
    lab.ssh(VAULT, STANDS_STILL)
    lab.ssh(old, KILL)
    lab.ssh(VAULT, "pkill -KILL -u keeper")
    nothing_left_behind(lab, old)
    assert len(snapshots(lab, old)) == before
    assert lab.ssh(VAULT, "ls /srv/sftp/nodes/old/locks | wc -l") != "0"
    backup(lab, old)
    assert lab.ssh(VAULT, "ls /srv/sftp/nodes/old/locks | wc -l") == "0"


def test_a_service_that_cannot_be_copied_is_named_and_the_others_are_saved(lab, old):
    lab.ssh(old, "mv /etc/kos/valkey/backup.sh /etc/kos/valkey/backup.sh.away")
    try:
        done = backup(lab, old, check=False)
    finally:
        lab.ssh(old, "mv /etc/kos/valkey/backup.sh.away /etc/kos/valkey/backup.sh")
    assert done.returncode == 1 and "lacks valkey" in done.stderr
    last = snapshots(lab, old)[-1]
    assert last["tags"] == ["partial"]


def test_the_retention_prunes(lab, old):
    fake = (
        "for day in 01 02 03 04 05 06; do printf '%s\\n' --repo /srv/backup backup --quiet --host old --tag kos"
        ' --time "2026-01-$day 12:00:00" /etc/hostname > /run/kos-backup/arguments; systemctl start kos-restic; done'
    )
    lab.ssh(old, fake)
    count = "find /srv/backup/snapshots -type f | wc -l"
    assert int(lab.ssh(old, count)) >= 7
    backup(lab, old)
    # The four last, of which the newest stand for their days.
    assert int(lab.ssh(old, count)) <= 6


def test_the_timer_catches_up_and_is_spread(lab, old):
    shown = lab.ssh(old, "systemctl show kos-backup.timer -P Persistent -P RandomizedDelayUSec -P ActiveState")
    assert sorted(shown.split()) == ["30min", "active", "yes"]


def test_verify_finds_one_flipped_bit(lab, old):
    well = lab.kai("verify", "--data", "100%", "-i", INVENTORY, "--limit", old, "--json")
    assert json.loads(well.stdout)[old]["ok"]
    lab.ssh(old, FLIP_A_BYTE)
    done = lab.kai("verify", "--data", "100%", "-i", INVENTORY, "--limit", old, "--json", check=False)
    rows = {row["place"]: row for row in json.loads(done.stdout)[old]["repositories"]}
    assert done.returncode == 1
    assert [row["ok"] for row in rows.values()] == [True, False]
    assert rows[LOCAL]["problem"]


def test_a_repository_that_has_gone_is_not_replaced_by_an_empty_one(lab, old):
    lab.ssh(old, "mv /srv/backup /srv/backup.away")
    done = backup(lab, old, check=False)
    assert done.returncode == 1 and "is gone" in done.stderr
    lab.ssh(old, "mv /srv/backup.away /srv/backup")


def test_the_node_is_destroyed_and_a_fresh_one_has_the_same_data(lab, old, layer, tmp_path):
    key = tmp_path / "old.key"
    lab.kai("backup", "key", "export", "-i", INVENTORY, "--limit", old, "--to", str(key))
    assert key.stat().st_mode & 0o777 == 0o600
    before = json.loads(oracle(lab, old, "read"))
    assert before["messages"] == 20 and len(before["keys"]) == 51 and "Charles" in before["graph"]
    backup(lab, old, check=False)
    lab.kai("lab", "down", old)

    lab.kai("lab", "up", NEW)
    (tmp_path / "wrong.key").write_text("0123456789abcdef0123456789abcdef\n")
    common = ["-i", INVENTORY, "--limit", NEW, "--site", layer]
    unknown = lab.kai("restore", "--into-fresh", "--key-file", str(tmp_path / "wrong.key"), *common, check=False)
    assert unknown.returncode == 1 and "cannot be reached" in unknown.stderr
    authorise(lab, NEW)
    wrong = lab.kai("restore", "-i", INVENTORY, "--limit", NEW, check=False)
    assert wrong.returncode == 1 and "does not open" in wrong.stderr
    done = lab.kai("restore", "--into-fresh", "--key-file", str(key), *common, "--json")
    report = json.loads(done.stdout)[NEW]
    assert set(report["services"]) >= {"postgresql", "valkey", "nats", "caddy", "prometheus"}
    assert lab.healthy(NEW)
    assert json.loads(oracle(lab, NEW, "read")) == before
    nothing_left_behind(lab, NEW)


def test_restoring_over_data_refuses_until_told_and_keeps_a_copy(lab):
    refused = lab.kai("restore", "-i", INVENTORY, "--limit", NEW, check=False)
    assert refused.returncode == 1
    assert "postgresql" in refused.stderr and "--overwrite" in refused.stderr
    before = json.loads(oracle(lab, NEW, "read"))
    drop = "runuser -u kos-postgresql -- psql -h /run/kos-postgresql -U postgres -d kos -c 'DROP TABLE people'"
    lab.ssh(NEW, drop)
    done = lab.kai("restore", "--service", "postgresql", "--overwrite", "-i", INVENTORY, "--limit", NEW, "--json")
    report = json.loads(done.stdout)[NEW]
    assert list(report["services"]) == ["postgresql"] and report["safety"]
    assert json.loads(oracle(lab, NEW, "read")) == before
    lab.kai("lab", "down", NEW)
