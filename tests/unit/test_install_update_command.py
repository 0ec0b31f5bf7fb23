# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai update`: what is asked of nodes, what a person reads, and the exit codes."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ansible_collections.kind.kos.cli import updates
from ansible_collections.kind.kos.cli.exits import Exit
from ansible_collections.kind.kos.cli.main import app

SITE = ["-i", "inventories/home"]
PREPARED = {"slot": 5, "packages": ["libc6", "ssh"], "kernel": "6.12.117"}


@pytest.fixture
def nodes(monkeypatch):
    """Stands for Ansible: says `events`, and keeps the variables it was given."""

    class Nodes:
        events: tuple = ()
        given: dict = {}

    made = Nodes()

    class Playbook:
        log = "log"

        def __init__(self, name, target, variables, *_more):
            assert name == "update"
            made.given = variables

        def events(self):
            return iter({"host": "n1", **event} for event in made.events)

        def wait(self):
            return int(any("msg" in event for event in made.events))

        def said(self):
            return "Ansible said so"

    monkeypatch.setattr(updates, "Playbook", Playbook)
    return made


def run(*arguments):
    return CliRunner().invoke(app, ["update", *arguments])


def test_an_update_that_came_up_well(nodes):
    nodes.events = (
        {"event": "prepare.end", "answer": PREPARED},
        {"event": "publish.end", "answer": {"slot": 5}},
        {"event": "proved.end", "answer": {"slot": 5}},
    )
    done = run(*SITE)
    assert done.exit_code == Exit.OK
    assert "system 5 is ready: 2 packages renewed, kernel 6.12.117" in done.output
    assert "system 5 came up well and is kept" in done.output
    assert nodes.given == {"kos_restart": True, "kos_back": False}


def test_one_that_went_back_has_the_exit_code_of_what_was_reverted(nodes):
    said = "system 5 did not come up well: valkey does not answer"
    nodes.events = ({"event": "proved.failed", "msg": said, "reverted": True},)
    done = run(*SITE)
    assert done.exit_code == Exit.REVERTED
    assert "valkey does not answer" in done.output
    assert "runs what it ran before" in done.output


def test_what_cannot_be_prepared_changed_nothing(nodes):
    nodes.events = ({"event": "prepare.failed", "msg": "the upgrade would remove ssh"},)
    done = run(*SITE)
    assert done.exit_code == Exit.REVERTED
    assert "Nothing was changed" in done.output


def test_nothing_newer_is_said(nodes):
    nodes.events = ({"event": "prepare.end", "answer": {"slot": None, "packages": [], "kernel": "6.12"}},)
    done = run(*SITE)
    assert done.exit_code == Exit.OK
    assert "every package is up to date" in done.output


def test_without_a_restart_the_next_start_tries_it(nodes):
    nodes.events = ({"event": "publish.end", "answer": {"slot": 5}},)
    assert "system 5 is tried at the next start: systemctl reboot" in run(*SITE, "--no-restart").output
    # A machine does not restart itself under its own playbook.
    assert "at the next start" in run().output


def test_going_back_names_the_system(nodes):
    nodes.events = ({"event": "back.end", "answer": {"from": 5, "to": 3}},)
    done = run(*SITE, "--back", "--to", "3", "--no-restart")
    assert done.exit_code == Exit.OK
    assert nodes.given == {"kos_restart": False, "kos_back": True, "kos_system": 3}
    assert "system 3 is chosen" in done.output
    assert run(*SITE, "--to", "3").exit_code == Exit.USAGE
