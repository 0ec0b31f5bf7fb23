# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of the tests' own, and `kai` as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = "inventories/lab"
BIN = Path(sys.executable).parent


class Lab:
    """Nodes of one lab: booted on demand, gone at the end."""

    def __init__(self, identity):
        self.environment = {**os.environ, "KOS_LAB_ID": identity, "LC_ALL": "C.UTF-8", "COLUMNS": "160"}

    def run(self, *argv, check=True, **options):
        done = subprocess.run(
            [str(BIN / argv[0]), *argv[1:]],
            cwd=ROOT, env={**self.environment, **options.pop("env", {})}, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, check=False, timeout=420, **options,
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
        return json.loads(self.kai("status", "-i", INVENTORY, "--limit", node, "--json", check=False).stdout)[node]

    def ssh(self, node, command, check=True):
        return self.kai("lab", "ssh", node, command, check=check).stdout.strip()

    def playbook(self, node, *argv, check=True, **options):
        return self.run("ansible-playbook", "site.yml", "-i", INVENTORY, "--limit", node, *argv, check=check, **options)
