# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node keeps is encrypted, as the kernel sees it."""

from __future__ import annotations

import json

import pytest

# What the node keeps beside the data of its services: a volume for data alone leaves them where they are.
SYSTEM = ("/home", "/var/lib/kos", "/var/log")
KEYS = "cryptsetup luksDump --dump-json-metadata"
# The devices under whatever is opened by dm-crypt now.
DEVICES = "lsblk --noheadings --list --output TYPE,PKNAME | sed -n 's,^crypt *,/dev/,p' | sort -u"


def data(seen):
    """Whether each folder with the data of a service is encrypted, by path."""
    return {path: sealed for path, sealed in seen["place"]["crypt"].items() if path not in SYSTEM}


def test_it_says_of_its_disk_what_the_kernel_says(seen):
    kept = data(seen).values()
    sealed = seen["place"]["crypt"]["/var/lib/kos"] or (any(kept) and all(kept))
    assert seen["status"]["storage"]["encrypted"] == sealed


@pytest.mark.needs("encrypted data")
def test_data_are_encrypted_all_of_them(seen):
    assert [path for path, sealed in data(seen).items() if not sealed] == []


@pytest.mark.needs("encrypted disk")
def test_everything_that_the_node_keeps_is_encrypted(seen):
    assert [path for path, sealed in seen["place"]["crypt"].items() if not sealed] == []


@pytest.mark.needs("encrypted disk")
def test_nothing_is_swapped_out_in_clear(host, seen):
    for device in seen["place"]["swap"]:
        kinds = host.check_output(f"lsblk --noheadings --inverse --list --output TYPE {device}").split()
        assert "crypt" in kinds or device.startswith("/dev/zram"), device


@pytest.mark.needs("encrypted data", "own kernel")
def test_guessing_a_passphrase_is_slow(host):
    """What a person types goes through argon2id. A key of full entropy need not, and a TPM guards its own."""
    devices = host.check_output(DEVICES).split()
    assert devices
    for device in devices:
        header = json.loads(host.check_output(f"{KEYS} {device}"))
        machines = {slot for token in header["tokens"].values() for slot in token["keyslots"]}
        typed = {name: slot["kdf"] for name, slot in header["keyslots"].items() if name not in machines}
        assert typed, f"nobody could open {device} by hand"
        assert {kdf["type"] for kdf in typed.values()} == {"argon2id"}, device
