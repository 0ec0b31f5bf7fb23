# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stranger on the network sees."""

from __future__ import annotations

import shlex

import pytest

# Listens on every address of the node while a stranger looks: only the packet filter keeps it from him.
CONTROL = "systemd-run --quiet --collect --unit=accept-control python3 -m http.server {port} --bind ::"
REACHED = "import socket, sys; socket.create_connection(('::1', int(sys.argv[1])), 5)"
PORT = 61999


@pytest.fixture
def control(host):
    """A listener that no plan knows."""
    host.check_output(CONTROL.format(port=PORT))
    asked = shlex.join(["python3", "-c", REACHED, str(PORT)])
    host.check_output(f"for turn in $(seq 50); do {asked} 2>/dev/null && exit; sleep 0.2; done; exit 1")
    yield PORT
    host.check_output("systemctl stop accept-control")


@pytest.mark.needs("outside")
def test_a_stranger_finds_the_ports_of_the_plan_and_no_other(seen, outside, control):
    """Looked for: everything that anything on the node listens on, and every port below 1024."""
    listening = {row["port"] for row in seen["listeners"] if row["protocol"] == "tcp"}
    plan = [
        row["port"] for row in seen["manifest"]["ports"] if row["exposure"] == "network" and row["protocol"] == "tcp"
    ]
    expected = {outside.ssh, *(port for port in plan if isinstance(port, int))}
    for address in outside.addresses:
        assert outside.opened(address, {*range(1, 1024), *listening, control}, expected) == expected, address
