# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mirror starts with either of its disks alone, says so, and is whole again when both are there."""

from __future__ import annotations

import os

import mediums
import mirrordisks
import pytest
import slotdisks

from ansible_collections.kind.kos.lab.machines import Disk

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]

# Seconds of an emulated start on a busy machine.
PATIENCE = 1500
# Once it has come up: what it is mounted with, what it says of its mirror; then off.
DRIVE = """\
set -u
tell() { printf 'KOS-TEST %s\\n' "$*" >/dev/console; }
until systemctl is-active --quiet kos-bless.service; do sleep 1; done
ended() { [ "$(systemctl show --property ExecMainExitTimestampMonotonic --value "$1")" != 0 ]; }
until ended kos-mirror.service; do sleep 1; done
said() {
  PYTHONPATH=/usr/lib/kos/node python3 -B -c 'import json; from kos_node.files import Root
from kos_node.machine import mirror
found = mirror.found(Root()); print(json.dumps({"mirrors": found, "concerns": mirror.concerns(Root(), found)}))'
}
head -c 30000000 /dev/urandom >/var/lib/kos-test/written
sync
mounted=$(findmnt --noheadings --list --output TARGET | tr '\\n' ' ')
tell "{\\"options\\": \\"$(findmnt --noheadings --output OPTIONS /)\\", \\"mounted\\": \\"$mounted\\", \\
\\"failed\\": \\"$(systemctl --failed --plain --no-legend | tr '\\n' ' ')\\", \\"said\\": $(said)}"
systemctl poweroff
"""


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """The two disks."""
    return mirrordisks.make(slotdisks.built(tmp_path_factory), tmp_path_factory.mktemp("disks"), DRIVE)


def started(first, *others, keep=False):
    """What the machine told that started from the first of these disks, and all that it said."""
    media = mediums.Media(f"mirror{os.getpid()}")
    more = tuple(Disk(one, one.stem) for one in others)
    credentials = {"cryptsetup.passphrase": slotdisks.PASSPHRASE}
    with media.booted(first, persist=keep, disks=more, credentials=credentials, usb=False) as machine:
        machine.wait_for(r"Power down|reboot: Power", seconds=PATIENCE)
        said = machine.said
    (row,) = slotdisks.told(said) or pytest.fail(said[-3000:])
    return row, said


@pytest.mark.parametrize("left", [0, 1], ids=["the first", "the second"])
def test_either_disk_starts_alone(disks, left):
    row, said = started(disks[left])
    assert "one disk of this machine's mirror is missing" in said
    assert "degraded" in row["options"].split(",") and row["failed"] == ""
    assert {"/", "/var", "/var/log", "/home", "/var/lib/kos", ("/efi", "/efi-2")[left]} <= set(row["mounted"].split())
    assert [one["missing"] for one in row["said"]["mirrors"]] == [1]
    assert "One disk of the mirror is missing" in row["said"]["concerns"][0]


def test_what_was_written_meanwhile_is_on_both_when_the_other_is_back(disks):
    started(disks[0], keep=True)
    row, said = started(*disks, keep=True)
    assert "mirror is missing" not in said and "degraded" not in row["options"].split(",")
    assert {"/efi", "/efi-2"} <= set(row["mounted"].split())
    assert [(one["missing"], one["alone"]) for one in row["said"]["mirrors"]] == [(0, 0)]
    assert row["said"]["concerns"] == []
    # The other has all of it now.
    row, _said = started(disks[1])
    assert row["failed"] == ""
