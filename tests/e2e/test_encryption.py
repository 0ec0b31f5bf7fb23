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
import movednodes
import pytest
from labnodes import INVENTORY, wait_for
from movednodes import CANARY, DISK, NODE, PASSPHRASE, PSQL, VALKEY, data, encryption
from vmnodes import VmLab, unavailable

REASON = unavailable()
pytestmark = [
    pytest.mark.vm,
    pytest.mark.long,
    pytest.mark.skipif(bool(REASON), reason=f"no virtual node: {REASON}"),
]

NEW = "copper window thistle harbour"


@pytest.fixture(scope="module")
def vm():
    made = VmLab(f"crypt{os.getpid()}")
    made.patience = 3600
    yield made
    made.kai("lab", "down")


@pytest.fixture(scope="module")
def told(vm, tmp_path_factory):
    """What a node, deployed and with a spare disk, says of its data."""
    return movednodes.made(vm, tmp_path_factory.mktemp("layers"), "2G")


def test_a_disk_that_holds_something_is_refused(vm, told):
    vm.ssh(NODE, f"mkfs.ext4 -q {DISK}")
    refused = encryption(vm, "apply", "--target", DISK, check=False)
    assert refused.returncode and "holds ext4" in refused.stderr and f"--wipe {DISK}" in refused.stderr
    assert vm.ssh(NODE, f"blkid -o value -s TYPE {DISK}") == "ext4"


def test_killed_in_the_middle_of_a_copy_the_node_goes_on_with_its_data(vm, told):
    waits = 'until pgrep -x rsync; do sleep 0.05; done; systemctl kill --signal=KILL "kos-encryption-move-*"'
    vm.ssh(NODE, f"nohup sh -c '{waits}' >/dev/null 2>&1 &")
    killed = encryption(vm, "apply", "--target", DISK, "--wipe", DISK, check=False)
    assert killed.returncode
    assert data(vm) == told and vm.healthy(NODE)
    assert vm.ssh(NODE, "test -L /etc/kos/encryption/current && echo moved || echo plain") == "plain"


def test_one_more_run_moves_all_of_it(vm, told):
    began = time.monotonic()
    said = encryption(vm, "apply", "--json")
    report = json.loads(said.stdout)[NODE]
    print(f"\nmoved in {time.monotonic() - began:.0f} s, services stopped for {report['stopped_seconds']:.1f} s")
    print(report["copies"], report["stop"])
    assert all(row["good"] for row in report["findings"]) and len(report["findings"]) > 6
    assert data(vm) == told and vm.healthy(NODE)


def test_the_kernel_and_the_disk_say_that_it_is_encrypted(vm, told):
    table = vm.ssh(NODE, "dmsetup table kos-encrypted").split()
    assert table[2:4] == ["crypt", "aes-xts-plain64"]
    spare = vm.ssh(NODE, f"realpath {DISK}")
    tree = json.loads(vm.ssh(NODE, f"lsblk --json --tree --output NAME,PATH,TYPE,FSTYPE {spare}"))["blockdevices"][0]
    assert tree["fstype"] == "crypto_LUKS" and tree["children"][0]["type"] == "crypt"
    for path in ("/var/lib/kos-postgresql", "/var/lib/kos-valkey"):
        source = vm.ssh(NODE, f"findmnt --noheadings --output SOURCE --mountpoint {path}")
        assert source.startswith("/dev/mapper/kos-encrypted["), source
    header = json.loads(vm.ssh(NODE, f"cryptsetup luksDump --dump-json-metadata {DISK}"))
    memory = int(vm.ssh(NODE, "awk '/MemTotal/ {print $2}' /proc/meminfo"))
    [cost] = [slot["kdf"] for slot in header["keyslots"].values()]
    assert cost["type"] == "argon2id" and cost["time"] == 4 and abs(cost["memory"] - memory // 4) < 1024
    assert vm.ssh(NODE, f"grep -c --text {CANARY} {DISK}", check=False) in ("", "0"), "the canary is on the raw disk"


def test_after_a_restart_it_waits_and_is_unlocked_over_ssh(vm, told):
    vm.reboot(NODE)
    wait_for(lambda: "locked" in encryption(vm, "status", passphrase="").stdout, 900)
    assert vm.ssh(NODE, "systemctl is-active kos-postgresql kos-valkey", check=False).split() == [
        "inactive",
        "inactive",
    ]
    assert vm.ssh(NODE, "systemctl is-active kos-firewall") == "active"
    refused = vm.deploy(NODE, check=False)
    assert refused.returncode and "kai encryption unlock" in refused.stdout + refused.stderr
    assert encryption(vm, "unlock", passphrase="not this one at all", check=False).returncode
    encryption(vm, "unlock")
    wait_for(lambda: vm.healthy(NODE), 900)
    assert data(vm) == told


def test_plain_copies_go_and_another_passphrase_comes(vm, told):
    encryption(vm, "discard", passphrase="")
    look = "find /run/look/kos-postgresql /run/look/kos-valkey -type f"
    assert vm.ssh(NODE, f"mkdir /run/look && mount --bind /var/lib /run/look && {look} && umount /run/look") == ""
    encryption(vm, "rotate", passphrase=f"{PASSPHRASE}\n{NEW}")
    encryption(vm, "lock", passphrase="")
    assert encryption(vm, "unlock", check=False).returncode
    encryption(vm, "unlock", passphrase=NEW)
    assert data(vm) == told and vm.healthy(NODE)


def test_a_backup_of_its_plain_days_is_restored_onto_it_and_the_suite_passes(vm, told):
    vm.ssh(NODE, f"{PSQL} -c 'DROP TABLE told'; {VALKEY} SET told:1 other")
    vm.kai("restore", "--overwrite", "-i", INVENTORY, "--limit", NODE)
    assert data(vm) == told and vm.healthy(NODE)
    accepting.accept(f"{INVENTORY}/hosts.py", NODE, "playbook", "--profile", "development", environment=vm.environment)


def test_no_passphrase_is_in_a_log_or_a_file_of_the_node(vm, told):
    for word in (PASSPHRASE, NEW):
        assert word not in vm.ssh(NODE, "journalctl --no-pager")
        found = vm.ssh(
            NODE, f"grep -rl --binary-files=text -e '{word}' /etc /root /var/log /var/lib/kos /tmp", check=False
        )
        assert found == "", found
