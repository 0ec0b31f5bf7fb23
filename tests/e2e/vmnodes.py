# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual nodes: a kernel of their own, a plug to pull, a clock to move. Without a usable /dev/kvm they are slow."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import tempfile

import pytest
from labnodes import BIN, ROOT, Lab, wait_for

from ansible_collections.kind.kos.lab import cache, host, lifecycle, qmp, vm_image
from ansible_collections.kind.kos.lab.errors import LabError
from ansible_collections.kind.kos.lab.identity import identify

_NOW = "the power goes now"


class VmLab(Lab):
    """A lab whose nodes are virtual machines."""

    patience = 1500

    def up(self, node):
        """Make a node, or switch it on again with its disk."""
        self.kai("lab", "up", node, "--driver", "vm")

    def reboot(self, node, *options):
        """Restart a node and wait until it is there again."""
        self.kai("lab", "reboot", node, *options)

    def cut_power(self, node):
        """Pull the plug: what the node's kernel had not written is lost."""
        self.kai("lab", "kill", node)

    def console(self, node):
        """What the node has printed on its serial port since it was made: that reaches us whatever becomes of it."""
        return (identify(self.environment).node_run(node) / "console.log").read_text(errors="replace")

    def cut_power_at(self, node, moment, *argv, given=""):
        """Pull the plug in the midst of `kai ARGV`: as soon as `moment` holds, a condition in the node's own shell.

        What only the node's memory had is lost, all that it had not written out, and what QEMU kept of its tables of a
        qcow2 disk. What its disks had taken stays, flushed or not: a real disk's cache loses more (that is replayed).
        """
        before = len(self.console(node))
        waits = f"until {moment}; do sleep 0.1; done; echo {_NOW} >/dev/ttyS0"
        self.ssh(node, f"nohup sh -c '{waits}' >/dev/null 2>&1 &")
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                [str(BIN / "kai"), *argv], cwd=ROOT, env=self.environment, start_new_session=True, text=True,
                stdin=subprocess.PIPE, stdout=said, stderr=said,
            )  # fmt: skip
            try:
                with process.stdin:
                    process.stdin.write(given)
                wait_for(lambda: _NOW in self.console(node)[before:] or process.poll() is not None, self.patience)
                # A command of its own would take a second to begin, in which the moment passes.
                lifecycle.kill(identify(self.environment), node)
                if process.poll() is not None:
                    said.seek(0)
                    pytest.fail(f"{' '.join(argv)} ended with {process.returncode} before its moment:\n{said.read()}")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def move_clock(self, node, offset):
        """Move the node's clock by `+3d`, `-90s`, …"""
        self.kai("lab", "clock", node, offset)

    def plug(self, node, device, name, port):
        """Plug a USB device of QEMU's (`usb-kbd`, `usb-mouse`, …) into a port, counted from 1."""
        qmp.execute(self._monitor(node), "device_add", driver=device, id=name, bus="usb.0", port=str(port))

    def unplug(self, node, name):
        """Pull a USB device out."""
        qmp.execute(self._monitor(node), "device_del", id=name)

    def _monitor(self, node):
        return identify(self.environment).node_run(node) / "qmp.sock"

    def within(self, node, unit, line, check=True):
        """What a shell prints that runs as a part of a unit: under its limits, counted as the unit's own."""
        group = f"/sys/fs/cgroup$(systemctl show --value --property ControlGroup {unit})"
        return self.ssh(node, f"echo $$ > {group}/cgroup.procs && {line}", check=check)

    def counter(self, node, unit, file, name):
        """A number that the kernel keeps of a unit, such as how often it was held back."""
        group = f"/sys/fs/cgroup$(systemctl show --value --property ControlGroup {unit})"
        return int(self.ssh(node, f"sed -n 's/^{name} //p' {group}/{file}"))


@functools.cache
def unavailable():
    """Why no virtual node can be had here; empty where one can."""
    if os.geteuid():
        return "a lab needs root"
    if cache.architecture() != vm_image.ARCHITECTURE:
        return f"virtual nodes are {vm_image.ARCHITECTURE}"
    try:
        host.require(host.survey())
    except LabError as error:
        return " ".join(str(error).split())
    return ""


if __name__ == "__main__":
    print(unavailable())
