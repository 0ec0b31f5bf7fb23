# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that runs, with data in PostgreSQL and Valkey, is encrypted onto a spare disk: killed, restarted, unlocked.

Every claim is looked up with tools that are not ours: dmsetup, lsblk, findmnt, the raw bytes of the disk.
"""

from __future__ import annotations

import json
import os
import time

import accepting
import pytest
from labnodes import INVENTORY, wait_for
from vmnodes import VmLab, unavailable

REASON = unavailable()
pytestmark = [
    pytest.mark.vm,
    pytest.mark.long,
    pytest.mark.skipif(bool(REASON), reason=f"no virtual node: {REASON}"),
]

NODE, DISK = "metal", "/dev/disk/by-id/virtio-spare"
PASSPHRASE, NEW = "violet ladder anvil sparrow", "copper window thistle harbour"
CANARY = "canary-of-the-encryption-test"
# Enough that a copy takes time on an emulated machine, and one can be killed in it.
ROWS = int(os.environ.get("KOS_ENCRYPTION_ROWS", "60000"))
PSQL = "runuser -u kos-postgresql -- psql -XAtq -h /run/kos-postgresql -U postgres -d kos"
SECRET = "systemd-creds decrypt --name=kos-valkey.password /var/lib/kos/secrets/valkey.password.cred -"
VALKEY = f"REDISCLI_AUTH=$({SECRET}) valkey-cli -e -h 127.0.0.1 --user kos --no-auth-warning"


@pytest.fixture(scope="module")
def vm():
    made = VmLab(f"crypt{os.getpid()}")
    made.patience = 3600
    yield made
    made.kai("lab", "down")


@pytest.fixture(scope="module")
def node(vm, tmp_path_factory):
    """Deployed, with data and a spare disk."""
    site = tmp_path_factory.mktemp("layers") / "site.yaml"
    site.write_text("services: {vector_db: pgvector}\nbackup: {repository: /srv/backup}\n")
    vm.up(NODE)
    vm.deploy(NODE, "--profile", "development", "--site", str(site))
    sql = f"CREATE TABLE told AS SELECT n, repeat('{CANARY}', 30) AS said FROM generate_series(1, {ROWS}) n"
    vm.ssh(NODE, f'{PSQL} -c "{sql}"')
    vm.ssh(NODE, f"{VALKEY} SET told {CANARY}")
    vm.kai("backup", "-i", INVENTORY, "--limit", NODE)
    vm.ssh(NODE, "sync && systemctl poweroff", check=False)
    vm.cut_power(NODE)
    vm.kai("lab", "disk", NODE, "2G")
    vm.up(NODE)
    wait_for(lambda: vm.healthy(NODE), 900)
    return NODE


def encryption(vm, *argv, passphrase=PASSPHRASE, check=True):
    given = {"input": f"{passphrase}\n"} if passphrase else {}
    return vm.kai("encryption", *argv, "-i", INVENTORY, "--limit", NODE, check=check, **given)


def whole(vm):
    """Whether both databases have what they were told."""
    rows = int(vm.ssh(NODE, f"{PSQL} -c 'SELECT count(*) FROM told'"))
    return rows == ROWS and vm.ssh(NODE, f"{VALKEY} GET told") == CANARY


def test_a_disk_that_holds_something_is_refused(vm, node):
    vm.ssh(node, f"mkfs.ext4 -q {DISK}")
    refused = encryption(vm, "apply", "--target", DISK, check=False)
    assert refused.returncode and "holds ext4" in refused.stderr and f"--wipe {DISK}" in refused.stderr
    assert vm.ssh(node, f"blkid -o value -s TYPE {DISK}") == "ext4"


def test_killed_in_the_middle_of_a_copy_the_node_goes_on_with_its_data(vm, node):
    waits = 'until pgrep -x rsync; do sleep 0.05; done; systemctl kill --signal=KILL "kos-encryption-move-*"'
    vm.ssh(node, f"nohup sh -c '{waits}' >/dev/null 2>&1 &")
    killed = encryption(vm, "apply", "--target", DISK, "--wipe", DISK, check=False)
    assert killed.returncode
    assert whole(vm) and vm.healthy(node)
    assert vm.ssh(node, "test -L /etc/kos/encryption/current && echo moved || echo plain") == "plain"


def test_one_more_run_moves_all_of_it(vm, node):
    began = time.monotonic()
    said = encryption(vm, "apply", "--json")
    report = json.loads(said.stdout)[node]
    print(f"\nmoved in {time.monotonic() - began:.0f} s, services stopped for {report['stopped_seconds']:.1f} s")
    print(report["copies"])
    assert all(row["good"] for row in report["findings"]) and len(report["findings"]) > 6
    assert whole(vm) and vm.healthy(node)


def test_the_kernel_and_the_disk_say_that_it_is_encrypted(vm, node):
    table = vm.ssh(node, "dmsetup table kos-encrypted").split()
    assert table[2:4] == ["crypt", "aes-xts-plain64"]
    spare = vm.ssh(node, f"realpath {DISK}")
    tree = json.loads(vm.ssh(node, f"lsblk --json --tree --output NAME,PATH,TYPE,FSTYPE {spare}"))["blockdevices"][0]
    assert tree["fstype"] == "crypto_LUKS" and tree["children"][0]["type"] == "crypt"
    for path in ("/var/lib/kos-postgresql", "/var/lib/kos-valkey"):
        source = vm.ssh(node, f"findmnt --noheadings --output SOURCE --mountpoint {path}")
        assert source.startswith("/dev/mapper/kos-encrypted["), source
    header = json.loads(vm.ssh(node, f"cryptsetup luksDump --dump-json-metadata {DISK}"))
    memory = int(vm.ssh(node, "awk '/MemTotal/ {print $2}' /proc/meminfo"))
    [cost] = [slot["kdf"] for slot in header["keyslots"].values()]
    assert cost["type"] == "argon2id" and cost["time"] == 4 and abs(cost["memory"] - memory // 4) < 1024
    assert vm.ssh(node, f"grep -c --text {CANARY} {DISK}", check=False) in ("", "0"), "the canary is on the raw disk"


def test_after_a_restart_it_waits_and_is_unlocked_over_ssh(vm, node):
    vm.reboot(node)
    wait_for(lambda: "locked" in encryption(vm, "status", passphrase="").stdout, 900)
    assert vm.ssh(node, "systemctl is-active kos-postgresql kos-valkey", check=False).split() == [
        "inactive",
        "inactive",
    ]
    assert vm.ssh(node, "systemctl is-active kos-firewall") == "active"
    refused = vm.deploy(node, check=False)
    assert refused.returncode and "kai encryption unlock" in refused.stdout + refused.stderr
    assert encryption(vm, "unlock", passphrase="not this one at all", check=False).returncode
    encryption(vm, "unlock")
    wait_for(lambda: vm.healthy(node), 900)
    assert whole(vm)


def test_plain_copies_go_and_another_passphrase_comes(vm, node):
    encryption(vm, "discard", passphrase="")
    look = "find /run/look/kos-postgresql /run/look/kos-valkey -type f"
    assert vm.ssh(node, f"mkdir /run/look && mount --bind /var/lib /run/look && {look} && umount /run/look") == ""
    encryption(vm, "rotate", passphrase=f"{PASSPHRASE}\n{NEW}")
    encryption(vm, "lock", passphrase="")
    assert encryption(vm, "unlock", check=False).returncode
    encryption(vm, "unlock", passphrase=NEW)
    assert whole(vm) and vm.healthy(node)


def test_a_backup_of_its_plain_days_is_restored_onto_it_and_the_suite_passes(vm, node):
    vm.ssh(node, f"{PSQL} -c 'DROP TABLE told'; {VALKEY} SET told other")
    vm.kai("restore", "--overwrite", "-i", INVENTORY, "--limit", node)
    assert whole(vm) and vm.healthy(node)
    accepting.accept(f"{INVENTORY}/hosts.py", node, "playbook", "--profile", "development", environment=vm.environment)


def test_no_passphrase_is_in_a_log_or_a_file_of_the_node(vm, node):
    for word in (PASSPHRASE, NEW):
        assert word not in vm.ssh(node, "journalctl --no-pager")
        found = vm.ssh(
            node, f"grep -rl --binary-files=text -e '{word}' /etc /root /var/log /var/lib/kos /tmp", check=False
        )
        assert found == "", found
