# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual node whose data can be encrypted: rows in PostgreSQL, keys in Valkey and files, and a spare disk for them.

What it was told is counted and has a checksum made by the databases and by coreutils: `data` is compared as a whole.
"""

from __future__ import annotations

import os

from labnodes import INVENTORY, wait_for

NODE, DISK = "metal", "/dev/disk/by-id/virtio-spare"
PASSPHRASE = "violet ladder anvil sparrow"
CANARY = "canary-of-the-encryption-test"
# Enough that a copy takes time on an emulated machine, and one can be killed in it.
ROWS = int(os.environ.get("KOS_ENCRYPTION_ROWS", "60000"))
KEYS, FILES = 200, 40
FOLDER = "/var/lib/kos-caddy/files"
PSQL = "runuser -u kos-postgresql -- psql -XAtq -h /run/kos-postgresql -U postgres -d kos"
_SECRET = "systemd-creds decrypt --name=kos-valkey.password /var/lib/kos/secrets/valkey.password.cred -"
VALKEY = f"REDISCLI_AUTH=$({_SECRET}) valkey-cli -e -h 127.0.0.1 --user kos --no-auth-warning"
_SITE = "services: {vector_db: pgvector}\nbackup: {repository: /srv/backup, retention: {last: 3}}\n"
_TELL = f"""
{PSQL} -c "CREATE TABLE told AS SELECT n, repeat('{CANARY}', 30) AS said FROM generate_series(1, {ROWS}) n"
seq {KEYS} | sed 's/.*/SET told:& {CANARY}-&/' | {VALKEY} >/dev/null
mkdir {FOLDER}
cd {FOLDER}
for n in $(seq {FILES}); do head -c 50000 /dev/urandom >$n; done
"""
_DATA = f"""
{PSQL} -c 'SELECT count(*), sum(hashtextextended(said, n)) FROM told'
seq {KEYS} | sed 's/.*/GET told:&/' | {VALKEY} | sha256sum
cd {FOLDER}
sha256sum -- * | sha256sum
"""


def made(vm, folder, size):
    """Deploy the node and tell it its data, then give it a spare disk of `size`; what `data` says from now on."""
    site = folder / "site.yaml"
    site.write_text(_SITE)
    vm.up(NODE)
    vm.deploy(NODE, "--profile", "development", "--site", str(site))
    vm.ssh(NODE, f"set -e; {_TELL}")
    told = data(vm)
    assert told.splitlines()[0].startswith(f"{ROWS}|")
    vm.kai("backup", "-i", INVENTORY, "--limit", NODE)
    vm.ssh(NODE, "sync && systemctl poweroff", check=False)
    vm.cut_power(NODE)
    vm.kai("lab", "disk", NODE, size)
    vm.up(NODE)
    wait_for(lambda: vm.healthy(NODE), 900)
    return told


def data(vm):
    """What the node has of all that it was told, counted and summed up."""
    return vm.ssh(NODE, f"set -e; {_DATA}")


def encryption(vm, *argv, passphrase=PASSPHRASE, check=True):
    """`kai encryption …` on the node; with no `passphrase` none is typed."""
    given = {"input": f"{passphrase}\n"} if passphrase else {}
    return vm.kai("encryption", *argv, "-i", INVENTORY, "--limit", NODE, check=check, **given)
