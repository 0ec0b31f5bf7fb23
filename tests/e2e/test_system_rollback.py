# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Updates of the whole system on an encrypted disk: one whose gate fails, a good one, one whose init is broken.

One machine goes through all of it without a hand; some ten starts, half an hour and more where they are emulated.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import mediums
import pytest
import slotdisks

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]

# Seconds: ten emulated starts on a busy machine.
PATIENCE = 5400
GATE_FAILS = "#!/bin/sh\necho planted to fail >&2\nexit 1\n"
BREAK_INIT = "#!/bin/sh\ncd /usr/lib/systemd && cp /bin/false broken && mv broken systemd\n"
PACKAGES = {
    1: {"usr/share/kos-probe/version": "1\n"},
    2: {"usr/share/kos-probe/version": "2\n", "etc/kos/healthy.d/planted": GATE_FAILS},
    3: {"usr/share/kos-probe/version": "3\n"},
    4: {"usr/share/kos-probe/version": "4\n", "DEBIAN/postinst": BREAK_INIT},
}
# What is offered after each start that came up well.
DRIVE = """\
set -u
tell() { printf 'KOS-TEST %s\\n' "$*" >/dev/console; }
here=/var/lib/kos-test
slot=$(sed -n 's/.*kos\\.slot=\\([0-9]*\\).*/\\1/p' /proc/cmdline)
version=$(cat /usr/share/kos-probe/version)
tell "{\\"start\\": $slot, \\"version\\": $version, \\"entries\\": \\"$(ls /efi/loader/entries | tr '\\n' ' ')\\"}"
until systemctl is-active --quiet kos-bless.service; do sleep 1; done
step=$(cat $here/step 2>/dev/null || echo 2)
tell "{\\"well\\": $slot, \\"version\\": $version, \\"seconds\\": $(cut -d. -f1 /proc/uptime), \\
\\"entries\\": \\"$(ls /efi/loader/entries | tr '\\n' ' ')\\", \\"status\\": $(kos-system status | tr '\\n' ' ')}"
if [ "$step" = 5 ]; then
  tell "{\\"roots\\": \\"$(btrfs subvolume list / | grep -o '@root.*' | tr '\\n' ' ')\\"}"
  systemctl poweroff
  exit
fi
cp $here/repository/Packages.$step $here/repository/Packages
echo $((step + 1)) >$here/step
sync
before=$(cut -d. -f1 /proc/uptime)
tell "{\\"staged\\": $(kos-system stage 2>$here/error | tr '\\n' ' '), \\"step\\": $step, \\
\\"took\\": $(($(cut -d. -f1 /proc/uptime) - before)), \\"error\\": \\"$(tr '\\n\\"' '  ' <$here/error)\\"}"
tell "{\\"published\\": $(kos-system publish | tr '\\n' ' ')}"
systemctl reboot
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What a build of the stick leaves in its cache."""
    return slotdisks.built(tmp_path_factory)


@pytest.fixture(scope="module")
def told(parts, tmp_path_factory):
    """What the machine told while it went through the updates."""
    folder = Path(tmp_path_factory.mktemp("disk", numbered=True))
    return went_through(mediums.Media(f"slots{os.getpid()}"), parts, folder)


def went_through(media, parts, folder):
    luks = str(uuid.uuid4())
    disk = slotdisks.make(parts, folder, luks, DRIVE, PACKAGES)
    began = time.monotonic()
    credentials = {"cryptsetup.passphrase": slotdisks.PASSPHRASE}
    with media.booted(disk, persist=True, credentials=credentials, usb=False) as machine:
        while not machine.ended and time.monotonic() - began < PATIENCE:
            time.sleep(2)
        said = machine.said
    (folder / "serial.log").write_text(said)
    disk.unlink()
    rows = slotdisks.told(said)
    for row in rows:
        print(row)
    print(f"{len([row for row in rows if 'start' in row])} starts of user space, {time.monotonic() - began:.0f} s")
    assert said.count("Kernel panic") == 3, said[-3000:]
    return rows


def well(told):
    return [(row["well"], row["version"]) for row in told if "well" in row]


def test_it_went_through_all_of_them_without_a_hand(told):
    assert well(told) == [(1, 1), (1, 1), (3, 3), (3, 3)]


def test_one_whose_gate_fails_is_started_three_times_and_left(told):
    """Complaints 16 and 18: the counting is that of the systemd-boot which is installed, whatever its version."""
    assert [row["version"] for row in told if row.get("start") == 2] == [2, 2, 2]
    after = [row for row in told if "well" in row][1]
    assert after["status"]["failed"] == {"slot": 2, "reason": "planted: planted to fail"}
    assert after["entries"].split() == ["kos-1.conf", "recovery-kos.conf"]


def test_the_next_good_one_is_kept_though_one_failed_before(told):
    """Complaint 17: what failed once spoils nothing that comes after."""
    after = [row for row in told if "well" in row][2]
    assert after["status"]["slots"] == [1, 3]
    assert after["status"]["failed"] is None
    assert after["entries"].split() == ["kos-1.conf", "kos-3.conf", "recovery-kos.conf"]


def test_one_that_panics_is_left_too_and_its_reason_says_where_it_stopped(told):
    after = [row for row in told if "well" in row][3]
    assert after["status"]["failed"]["slot"] == 4
    assert "never reached its gate" in after["status"]["failed"]["reason"]
    assert not [row for row in told if row.get("start") == 4]


def test_nothing_is_left_of_those_that_failed(told):
    roots = next(row for row in told if "roots" in row)["roots"].split()
    assert sorted(roots) == ["@root.1", "@root.3"]


def test_grub_counts_down_on_a_bios_and_goes_back(parts, tmp_path):
    """Neither system finds a root, so each start ends with a restart: which one is next is GRUB's own choice."""
    disk = slotdisks.with_grub(tmp_path, parts, tries=3)
    assert started_by_grub(mediums.Media(f"grub{os.getpid()}"), disk, 5) == [2, 2, 2, 1, 1]


def started_by_grub(media, disk, times):
    found = []
    with media.booted(disk, persist=True, firmware="bios", usb=False, memory=1024) as machine:
        for _time in range(times):
            found.append(int(machine.wait(r"Kernel command line: .*kos\.slot=(\d)")[1]))
    return found
