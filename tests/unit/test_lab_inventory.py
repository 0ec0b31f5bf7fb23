# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as Ansible sees it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.kind.kos.lab import inventory, node, ssh
from ansible_collections.kind.kos.lab.identity import Lab
from ansible_collections.kind.kos.lab.state import Node, State

SCRIPT = Path(__file__).resolve().parents[2] / "inventories/lab/hosts.py"
LAB = Lab("x", Path("/checkout"))


def lab_state() -> State:
    ready = Node("one", "10.91.0.11", "fd01::11", "/root", "ssh-ed25519 AAAA", ready=True)
    half_made = Node("two", "10.91.0.12", "fd01::12", "/root", "ssh-ed25519 BBBB")
    return State("x", "/checkout", "10.91.0.0/24", "fd01::/64", nodes={"one": ready, "two": half_made})


def test_nodes_that_have_booted_are_the_group():
    listing = inventory.listing(LAB, lab_state())
    assert listing["kos"] == {"hosts": ["one"]}
    assert set(listing["_meta"]["hostvars"]) == {"one"}


def test_variables_of_a_node():
    variables = inventory.variables(LAB, lab_state().nodes["one"])
    assert variables["ansible_host"] == "10.91.0.11"
    assert variables["ansible_user"] == "root"
    assert variables["ansible_python_interpreter"] == "/usr/bin/python3"
    assert variables["ansible_ssh_private_key_file"] == "/run/kos-lab/x/ssh/id_ed25519"


def test_ssh_arguments_survive_the_shell_words_of_ansible():
    words = shlex.split(inventory.variables(LAB, lab_state().nodes["one"])["ansible_ssh_common_args"])
    assert "ProxyCommand=nsenter --net=/run/netns/kos-x nc %h %p" in words
    assert "UserKnownHostsFile=/run/kos-lab/x/ssh/known_hosts" in words
    assert "StrictHostKeyChecking=yes" in words


def test_one_word_is_a_line_for_the_shell_and_several_are_a_program():
    one = lab_state().nodes["one"]
    assert ssh.argv(LAB, one, ["uptime; id"])[-1] == "uptime; id"
    assert ssh.argv(LAB, one, ["echo", "a b"])[-1] == "echo 'a b'"
    assert ssh.argv(LAB, one)[-1] == "root@10.91.0.11"


def test_nodes_know_each_other_by_both_families():
    assert node.hosts_block(lab_state()).splitlines()[1:-1] == [
        "10.91.0.11 one",
        "fd01::11 one",
        "10.91.0.12 two",
        "fd01::12 two",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--list"], {"_meta": {"hostvars": {}}, "kos": {"hosts": []}}), (["--host", "one"], {})],
)
def test_script_without_a_lab_is_empty_and_says_why(arguments: list[str], expected: dict):
    environ = {"PATH": os.environ["PATH"], "KOS_LAB_ID": "never-made"}
    command = [sys.executable, "-I", str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    assert json.loads(done.stdout) == expected
    assert "kai lab up" in done.stderr


def test_script_can_be_executed():
    assert os.access(SCRIPT, os.X_OK)
