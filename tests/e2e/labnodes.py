# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of the tests' own, and `kai` as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = "inventories/lab"
BIN = Path(sys.executable).parent


class Lab:
    """Nodes of one lab: booted on demand, gone at the end."""

    patience = 420  # seconds for one command

    def __init__(self, identity):
        # A signing key of the tests' own: the user's is not theirs to make.
        self._keys = tempfile.TemporaryDirectory(prefix="kos-e2e-")
        own = {"KOS_LAB_ID": identity, "XDG_CONFIG_HOME": self._keys.name, "LC_ALL": "C.UTF-8", "COLUMNS": "160"}
        self.environment = {**os.environ, **own}

    def run(self, *argv, check=True, **options):
        done = subprocess.run(
            [str(BIN / argv[0]), *argv[1:]],
            cwd=ROOT, env={**self.environment, **options.pop("env", {})}, capture_output=True, text=True,
            **({} if {"input", "stdin"} & options.keys() else {"stdin": subprocess.DEVNULL}), check=False,
            timeout=self.patience, **options,
        )  # fmt: skip
        if check and done.returncode != 0:
            pytest.fail(f"{' '.join(argv)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def kai(self, *argv, check=True, **options):
        """`kai …`; fails the test when it fails, unless told not to `check`."""
        return self.run("kai", *argv, check=check, **options)

    def deploy(self, node, *argv, check=True):
        return self.kai("deploy", "-i", INVENTORY, "--limit", node, *argv, check=check)

    def status(self, node):
        """What `kai status` says; empty while the node cannot be asked."""
        done = self.kai("status", "-i", INVENTORY, "--limit", node, "--json", check=False)
        nothing = {"services": [{"name": "none", "healthy": False}], "generation": {"id": "", "state": "unknown"}}
        return json.loads(done.stdout).get(node, nothing)

    def ssh(self, node, command, check=True):
        return self.kai("lab", "ssh", node, command, check=check).stdout.strip()

    def playbook(self, node, *argv, check=True, **options):
        return self.run("ansible-playbook", "site.yml", "-i", INVENTORY, "--limit", node, *argv, check=check, **options)

    def healthy(self, node):
        return all(row["healthy"] for row in self.status(node)["services"])

    def killed_deploy(self, node, layer, folder, deadline, **variables):
        """A deploy of `layer` whose controller is killed after the first switch."""
        events = folder / "events"
        events.write_text("")
        argv = [str(BIN / "ansible-playbook"), "site.yml", "-i", INVENTORY, "--limit", node]
        argv += ["-e", json.dumps({"kos_site_layer": layer, "kos_deadline": deadline, **variables})]
        process = subprocess.Popen(
            argv, cwd=ROOT, env={**self.environment, "KOS_EVENTS": str(events)}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: '"switch.end"' in events.read_text(), self.patience)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert '"commit.end"' not in events.read_text()


def wait_for(condition, seconds):
    """Until `condition` holds; the test fails when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail("it did not happen in time")
        time.sleep(0.3)
