# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plug is pulled on a node while its data are encrypted in place, and while they are backed up: real power cuts.

Five of each. After each one the machine is switched on again and the same command given once more: all is there that
was there, and all that a client was told is stored while the command ran. At the end two gigabytes are moved, with the
time of the stop beside that of the copies.
"""

from __future__ import annotations

import json
import os
import re
import time

import crashtable
import movednodes
import pytest
from labnodes import INVENTORY, wait_for
from movednodes import DISK, NODE, PASSPHRASE, PSQL, VALKEY, data, encryption
from vmnodes import VmLab, unavailable

REASON = unavailable()
pytestmark = [
    pytest.mark.vm,
    pytest.mark.long,
    pytest.mark.skipif(bool(REASON), reason=f"no virtual node: {REASON}"),
]

SITE = ("-i", INVENTORY, "--limit", NODE)
APPLY = ("apply", "--target", DISK, "--wipe", DISK)
VOLUME, IN_FORCE, OLD = "/var/lib/kos-encrypted", "[ -L /etc/kos/encryption/current ]", "/run/kos/beneath"
STOPPED = "! systemctl is-active --quiet kos-postgresql"
# Where the plug is pulled, and whether the encrypted data are in force by then.
MOVES = {
    "the header is written": ("pgrep -x cryptsetup", False),
    "the first copy, services run": (
        f"mountpoint -q {VOLUME} && [ $(df --output=used -BM {VOLUME} | tr -dc 0-9) -gt 60 ]", False,
    ),
    "the last copy, services stand still": (f"{STOPPED} && pgrep -x rsync", False),
    "encrypted data in force, services stand still": (f"{IN_FORCE} && {STOPPED}", True),
}  # fmt: skip
ASKED = "/run/kos-backup/arguments"
BACKUPS = {
    "services are copied": "[ -d /var/lib/kos/staging/postgresql ]",
    "the repository is looked for": f"grep -qx cat {ASKED} && pgrep -x restic",
    "old locks go": f"grep -qx unlock {ASKED} && pgrep -x restic",
    "the snapshot is stored": f"grep -qx backup {ASKED} && find /srv/backup/data -type f -mmin -1 | grep -q .",
    "old snapshots go": f"grep -qx forget {ASKED} && pgrep -x restic",
}
# Each number is told on the serial port once PostgreSQL has said that it is stored.
TICKS = f"""
while :; do
  n=$({PSQL} -c "INSERT INTO ticks DEFAULT VALUES RETURNING n") && [ "$n" ] && echo "stored $n" >/dev/ttyS0
  sleep 1
done
"""
# As much as this node takes: Valkey keeps all of its own in memory. Rows of a size that PostgreSQL does not compress.
ROWS, ROW, KEYS, KEY = 1_200_000, 1600, 150, 1_000_000
MUCH = f"""
print("BEGIN; CREATE TABLE much (n int, said text); COPY much FROM STDIN WITH (FREEZE);")
for n in range({ROWS}):
    print(f"{{n}}\\t{{str(n).zfill(9) * {ROW // 9}}}")
print("\\\\.\\nCOMMIT; CHECKPOINT;")
"""
MANY = f"""
import sys
for n in range({KEYS}):
    name = b"much:%d" % n
    parts = (b"SET", name, name.ljust({KEY}, b"."))
    sys.stdout.buffer.write(b"*3\\r\\n" + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(one), one) for one in parts))
"""
COUNTED = f"{PSQL} -c 'SELECT count(*), sum(hashtextextended(said, n)) FROM much'"
SIZES = f"{PSQL} -c 'SELECT pg_database_size(current_database())'; du --bytes --summarize /var/lib/kos-valkey"


@pytest.fixture(scope="module")
def vm():
    made = VmLab(f"cuts{os.getpid()}")
    made.patience = 3600
    yield made
    made.kai("lab", "down")


@pytest.fixture(scope="module")
def told(vm, tmp_path_factory):
    """What a node, deployed and with a spare disk, says of its data."""
    said = movednodes.made(vm, tmp_path_factory.mktemp("layers"), "6G")
    vm.ssh(NODE, f"{PSQL} -c 'CREATE TABLE ticks (n serial PRIMARY KEY)'")
    return said


def cut(vm, moment, *argv):
    """Pull the plug at a moment of a command, while a client has rows stored; switched on again."""
    vm.ssh(NODE, f"systemd-run --quiet --collect --unit=ticks sh -c '{TICKS}'")
    before = len(stored(vm))
    wait_for(lambda: len(stored(vm)) > before, 300)
    vm.cut_power_at(NODE, moment, *argv, *SITE, given=f"{PASSPHRASE}\n")
    vm.up(NODE)


def stored(vm):
    """The numbers of which the client was told that they are stored."""
    return set(map(int, re.findall(r"stored (\d+)", vm.console(NODE))))


def complete(vm, told):
    """All that the node was told before, and all of which it has said since that it is stored."""
    rows = set(map(int, vm.ssh(NODE, f"{PSQL} -c 'SELECT n FROM ticks'").split()))
    assert not stored(vm) - rows, f"{sorted(stored(vm) - rows)} were stored, and are not there"
    assert data(vm) == told
    wait_for(lambda: vm.healthy(NODE), 900)
    return len(stored(vm))


def in_force(vm):
    return vm.ssh(NODE, f"{IN_FORCE} && echo encrypted || echo plain")


def made_plain(vm):
    if in_force(vm) == "encrypted":
        encryption(vm, "undo", passphrase="")


def snapshots(vm):
    rows = json.loads(vm.kai("backup", "--list", *SITE, "--json").stdout)[NODE]
    return [row["id"] for row in rows]


@pytest.mark.parametrize("where", MOVES)
def test_after_a_power_cut_in_the_move_the_same_command_ends_it(vm, told, where):
    moment, encrypted = MOVES[where]
    with crashtable.row("power cut, kai encryption apply", where) as line:
        made_plain(vm)
        cut(vm, moment, "encryption", *APPLY)
        assert (in_force(vm) == "encrypted") == encrypted
        if not encrypted:
            wait_for(lambda: vm.healthy(NODE), 900)
            complete(vm, told)
        report = json.loads(encryption(vm, *APPLY, "--json").stdout)[NODE]
        assert len(report["findings"]) > 6 and all(row["good"] for row in report["findings"])
        assert in_force(vm) == "encrypted"
        line["by"] = f"one more run; all is there, and {complete(vm, told)} rows stored meanwhile"


def test_after_a_power_cut_in_the_discarding_the_same_command_ends_it(vm, told):
    with crashtable.row("power cut, kai encryption discard", "plain copies are overwritten") as line:
        encryption(vm, *APPLY)
        old = f"{OLD}/kos-postgresql"
        many = int(vm.ssh(NODE, "find /var/lib/kos-postgresql -type f | wc -l"))
        fewer = f"[ -d {old} ] && [ $(find {old} -type f | wc -l) -lt {many * 3 // 4} ]"
        cut(vm, fewer, "encryption", "discard", "--unproven")
        encryption(vm, "unlock")
        complete(vm, told)
        encryption(vm, "discard", "--unproven", passphrase="")
        bind = "mkdir -p /run/look && mount --bind /var/lib /run/look"
        left = vm.ssh(NODE, f"{bind}; find /run/look/kos-postgresql /run/look/kos-valkey -type f; umount /run/look")
        assert left == "", left
        line["by"] = f"one more run; all is there, and {complete(vm, told)} rows stored meanwhile"


@pytest.mark.parametrize("where", BACKUPS)
def test_after_a_power_cut_in_a_backup_the_same_command_ends_it(vm, told, where):
    with crashtable.row("power cut, kai backup", where) as line:
        before = snapshots(vm)
        cut(vm, BACKUPS[where], "backup")
        if in_force(vm) == "encrypted":
            encryption(vm, "unlock")
        wait_for(lambda: vm.healthy(NODE), 900)
        complete(vm, told)
        vm.kai("backup", *SITE)
        vm.kai("verify", "--data", "100%", *SITE)
        after = snapshots(vm)
        assert before[-1] in after and after[-1] not in before
        line["by"] = f"one more run; {len(after)} snapshots whole"


def test_what_was_backed_up_after_power_cuts_comes_back(vm, told):
    vm.ssh(NODE, f"{PSQL} -c 'DROP TABLE told'; {VALKEY} SET told:1 other")
    vm.kai("restore", "--overwrite", *SITE)
    assert data(vm) == told


def test_two_gigabytes_are_moved_with_a_stop_for_the_last_copy(vm, told):
    made_plain(vm)
    vm.ssh(NODE, f"set -e; python3 -c '{MUCH}' | {PSQL} -v ON_ERROR_STOP=1 -f -")
    vm.ssh(NODE, f"set -e; python3 -c '{MANY}' | {VALKEY} --pipe")
    counted = vm.ssh(NODE, COUNTED)
    database, valkey = (int(line.split()[0]) for line in vm.ssh(NODE, SIZES).splitlines())
    assert counted.startswith(f"{ROWS}|") and database + valkey > 2 * 10**9 and valkey > KEYS * KEY
    vm.ssh(NODE, f"systemd-run --quiet --collect --unit=ticks sh -c '{TICKS}'")
    began = time.monotonic()
    report = json.loads(encryption(vm, *APPLY, "--json").stdout)[NODE]
    [*running, last] = report["copies"]
    lines = [
        f"{database >> 20} MiB in PostgreSQL and {valkey >> 20} MiB in Valkey: {time.monotonic() - began:.0f} s in all",
        *[f"  a copy while services ran: {row['seconds']:.1f} s, {row['bytes'] / 1e6:.0f} MB" for row in running],
        f"  services stood still for {report['stopped_seconds']:.1f} s, of them",
        f"    the last copy: {last['seconds']:.1f} s, {last['bytes'] / 1e6:.0f} MB",
        *[f"    {part}: {seconds:.1f} s" for part, seconds in report["stop"].items() if part != "copying"],
    ]
    print("\n", "\n".join(lines), sep="")
    crashtable.note(lines)
    assert running[0]["bytes"] > 2 * 10**9 > 4 * last["bytes"]
    assert vm.ssh(NODE, COUNTED) == counted
    complete(vm, told)
