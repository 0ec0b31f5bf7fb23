# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai backup key export`, `restore` and `migrate`: what is asked of nodes, what is kept, and the exit codes."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ansible_collections.kind.kos.cli import backups, migration, uninstall
from ansible_collections.kind.kos.cli.exits import Exit
from ansible_collections.kind.kos.cli.main import app

SITE = ["-i", "inventories/home"]


@pytest.fixture
def nodes(monkeypatch):
    """Stands for Ansible: answers each query with `events`, and keeps what was asked."""

    class Nodes:
        names = ("n1",)
        events: dict = {}
        asked: list = []

    made = Nodes()
    made.events, made.asked = {}, []

    class Playbook:
        def __init__(self, name, target, variables, *more, **options):
            self.query = variables.get("kos_query", name)
            made.asked.append(self.query)
            found = made.events.get(self.query, [])
            self.found = found() if callable(found) else found

        def events(self):
            return iter(self.found)

        def wait(self):
            return int(any("msg" in event for event in self.found))

        def said(self):
            return "Ansible said so"

    for module in (backups, migration):
        monkeypatch.setattr(module, "Playbook", Playbook)
    for module in (backups, uninstall):
        monkeypatch.setattr(module, "chosen", lambda target: list(made.names))
    return made


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def answer(query, value):
    return {"event": f"{query}.end", "host": "n1", "answer": value}


def test_a_key_is_marked_as_exported_after_it_is_on_disk(nodes, tmp_path):
    to = tmp_path / "n1.key"
    on_disk = []

    def mark():
        on_disk.append((to.read_text(), oct(to.stat().st_mode & 0o777)))
        return [answer("key_exported", {})]

    nodes.events = {"export_key": [answer("export_key", "secret")], "key_exported": mark}
    assert run("backup", "key", "export", *SITE, "--to", str(to)).exit_code == 0
    assert on_disk == [("secret\n", "0o600")]


@pytest.mark.parametrize("names", [("n1", "n2")])
def test_several_nodes_are_refused_before_any_is_asked(nodes, tmp_path, names):
    nodes.names = names
    done = run("backup", "key", "export", *SITE, "--to", str(tmp_path / "key"))
    assert (done.exit_code, nodes.asked, list(tmp_path.iterdir())) == (Exit.USAGE, [], [])


def test_a_file_that_cannot_be_written_is_refused_before_a_node_is_asked(nodes, tmp_path):
    kept = tmp_path / "key"
    kept.write_text("another node's")
    for to in (kept, tmp_path / "missing" / "key"):
        assert run("backup", "key", "export", *SITE, "--to", str(to)).exit_code == Exit.USAGE
    assert (nodes.asked, kept.read_text()) == ([], "another node's")


def test_a_node_that_gives_no_key_leaves_no_file_and_is_not_marked(nodes, tmp_path):
    nodes.events = {"export_key": [{"event": "export_key.failed", "host": "n1", "msg": "no backups here"}]}
    done = run("backup", "key", "export", *SITE, "--to", str(tmp_path / "key"))
    assert (done.exit_code, nodes.asked, list(tmp_path.iterdir())) == (Exit.UNEXPECTED, ["export_key"], [])


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"event": "configuration.invalid", "faults": []}, Exit.INVALID_CONFIGURATION),
        ({"event": "preflight.failed"}, Exit.PREFLIGHT_FAILED),
        ({"event": "stage.failed", "msg": "full", "no_room": True}, Exit.PREFLIGHT_FAILED),
        ({"event": "switch.failed", "msg": "sick", "reverted": True}, Exit.REVERTED),
        ({"event": "switch.failed", "msg": "sick", "reverted": False}, Exit.NOT_REVERTED),
        ({"event": "restore.failed", "msg": "no snapshot"}, Exit.UNEXPECTED),
    ],
)
def test_a_restore_ends_with_the_exit_code_of_its_deploy(nodes, event, code):
    nodes.events = {"restore": [{"host": "n1", **event}]}
    assert run("restore", *SITE).exit_code == code


def test_a_restore_that_fails_after_its_announcement_says_why(nodes):
    failed = {"host": "n1", "event": "restore.failed", "msg": "/srv/backup cannot be reached"}
    nodes.events = {"restore": [answer("announce_restore", {}), failed]}
    done = run("restore", *SITE)
    assert done.exit_code == Exit.UNEXPECTED and done.exception.__class__ is SystemExit
    assert "cannot be reached" in done.stderr


@pytest.mark.parametrize("more", [["--from", "desktop"], ["--to", "server"], ["--backup"]])
def test_a_purge_goes_with_nothing_else(nodes, more):
    done = run("migrate", "--purge", "--yes-i-know", "n1", *more, *SITE)
    assert (done.exit_code, nodes.asked) == (Exit.USAGE, [])


def test_a_purge_removes_nothing_until_each_node_is_named(nodes):
    nodes.names = ("n1", "n2")
    nodes.events = {"purge_migration": [answer("migrate_purge", {"removed": []})]}
    assert run("migrate", "--purge", *SITE).exit_code == Exit.USAGE
    assert run("migrate", "--purge", "--yes-i-know", "n1", *SITE).exit_code == Exit.USAGE
    assert nodes.asked == []
    assert run("migrate", "--purge", "--yes-i-know", "n1,n2", *SITE).exit_code == Exit.OK
    assert nodes.asked == ["purge_migration"]
