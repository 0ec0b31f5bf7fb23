# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node comes back by itself as it was. Run last, once."""

from __future__ import annotations

import time

import pytest
from onnode import told

# An emulated machine on a busy one takes this long.
PATIENCE = 1800
BOOT = "cat /proc/sys/kernel/random/boot_id"
# Told a moment later, so that the session it is told in ends well.
RESTART = "systemd-run --quiet --collect --on-active=1 systemctl reboot"


def boot(host):
    """Which boot the node is in; empty while it cannot be asked."""
    try:
        return host.run(BOOT).stdout.strip()
    except RuntimeError:
        return ""


def settled(host, before):
    """What the node is once it is another boot's and every service is well; the last look at it after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while boot(host) in ("", before) and time.monotonic() < end:
        time.sleep(1)
    while True:
        found = told(host, "observe.py")
        if well(found) or time.monotonic() > end:
            return found
        time.sleep(2)


def well(seen):
    """Whether every service answers and every unit that starts by itself has."""
    begun = [unit["name"] for unit in seen["manifest"]["units"] if unit["starts"] == "now"]
    started = all(seen["units"][name]["ActiveState"] == "active" for name in begun)
    return started and not seen["generation"]["open"] and all(row["healthy"] for row in seen["status"]["services"])


def planned_listeners(seen):
    """The sockets of the plan's ports."""
    ports = {row["port"] for row in seen["manifest"]["ports"]}
    return {(row["protocol"], row["address"], row["port"]) for row in seen["listeners"] if row["port"] in ports}


@pytest.mark.needs("restart")
def test_it_comes_back_by_itself_as_it_was(host, seen):
    host.check_output(RESTART)
    now = settled(host, seen["place"]["boot"])
    assert now["place"]["boot"] != seen["place"]["boot"]
    assert now["failed"] == []
    assert well(now)
    for key in ("id", "number", "signed_by", "open", "pending", "deadlines"):
        assert now["generation"][key] == seen["generation"][key], key
    assert planned_listeners(now) == planned_listeners(seen)
    assert now["place"]["crypt"] == seen["place"]["crypt"]
    assert now["firewall"].keys() == seen["firewall"].keys() and now["firewall"]["nftables"]
