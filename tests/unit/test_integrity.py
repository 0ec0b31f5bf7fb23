# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that changed: what kOS and apt account for, what stays a finding, and who is told."""

from __future__ import annotations

import gzip
import json
import os
import time
from types import SimpleNamespace

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import files, history, integrity
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError, Root
from ansible_collections.kind.kos.plugins.module_utils.node.integrity import Finding
from ansible_collections.kind.kos.plugins.module_utils.node.journal import Journal

MANIFEST = {"services": [{"name": "aide"}], "files": [{"path": integrity.CONFIGURATION, "source": "aide.conf"}]}
CONTENT = b"the rules"


class Machine:
    """A root with AIDE's configuration, where AIDE says what the test tells it to."""

    def __init__(self, folder, monkeypatch):
        self.root, self.folder = Root(str(folder)), folder
        self.report, self.code, self.verbs = {}, 0, []
        self.while_reading = lambda: None
        self.put(integrity.CONFIGURATION, CONTENT)
        generation = SimpleNamespace(manifest=MANIFEST, content=lambda _source: CONTENT)
        monkeypatch.setattr(integrity.store, "current", lambda _root: generation)
        monkeypatch.setattr(integrity.system, "run", self.run)

    def put(self, path, content=b"new"):
        place = self.folder / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def run(self, argv, check):
        assert argv[0] == "aide" and not check
        self.verbs.append(argv[-1])
        self.put(f"{integrity.DATA}/seen", b"as it is")
        self.while_reading()
        return SimpleNamespace(
            returncode=self.code, stdout=json.dumps(self.report).encode(), stderr=b" ERROR: broken\n"
        )

    def known(self):
        return (files.read(self.root.join(f"{integrity.DATA}/known")) or b"").decode()

    def figures(self):
        return (self.folder / "var/lib/kos/metrics/integrity.prom").read_text()

    def apt(self, begin, end=None, name="history.log"):
        lines = [("Start-Date", begin), ("Commandline", None), *([("End-Date", end)] if end else [])]
        text = "\n" + "".join(
            f"{key}: {time.strftime('%Y-%m-%d  %H:%M:%S', time.localtime(at)) if at else 'apt-get install x'}\n"
            for key, at in lines
        )
        content = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
        self.put(f"/var/log/apt/{name}", content)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


@pytest.fixture
def compared(machine):
    """One whose files are known."""
    machine.put(f"{integrity.DATA}/known", b"as it was")
    return machine


def test_the_first_look_makes_what_is_there_known(machine):
    assert integrity.check(machine.root) == []
    assert (machine.verbs, machine.known()) == (["--init"], "as it is")
    assert "kos_integrity_findings 0\n" in machine.figures()


def test_a_change_that_nobody_accounts_for_stays_until_accepted(compared):
    compared.put("/etc/hosts")
    compared.report = {"changed": {"/etc/hosts": "f > ...     H      "}}
    assert integrity.check(compared.root) == [Finding("/etc/hosts", "has another content")]
    assert compared.known() == "as it was"
    assert "kos_integrity_findings 1\n" in compared.figures()
    assert integrity.concerns(integrity.summary(compared.root, MANIFEST)) == [
        "1 file changed, and neither kOS nor apt did it: kai doctor names them"
    ]
    ((problem, fix),) = integrity.findings(compared.root, MANIFEST)
    assert problem.startswith("/etc/hosts has another content")
    assert integrity.ACCEPT in fix

    integrity.accept(compared.root)
    assert compared.known() == "as it is"
    assert integrity.findings(compared.root, MANIFEST) == []


def test_which_files_changed_is_for_root_alone(compared):
    """The name of a file of root's is not everybody's."""
    compared.put("/root/plan")
    compared.report = {"added": {"/root/plan": "f+++"}}
    integrity.check(compared.root)
    assert os.stat(compared.root.join(f"{integrity.DATA}/findings.json")).st_mode & 0o077 == 0
    assert b"plan" not in (files.read(compared.root.state("integrity.json")) or b"")


def now():
    return int(time.time())


ACCOUNTS = {
    "kOS": lambda machine: history.record(machine.root, 1, "id", "committed", began=now() - 60),
    "kOS, taken back": lambda machine: history.record(machine.root, 1, "id", "reverted", began=now() - 60),
    "apt": lambda machine: machine.apt(now() - 60, now() + 1),
    "apt, months ago": lambda machine: machine.apt(now() - 60, now() + 1, "history.log.1.gz"),
    "apt, still at it": lambda machine: machine.apt(now() - 60),
}


@pytest.mark.parametrize("account", ACCOUNTS)
def test_what_kos_and_apt_did_becomes_known(compared, account):
    compared.put("/etc/passwd")
    ACCOUNTS[account](compared)
    compared.report = {"changed": {"/etc/passwd": "f > ...     H      "}, "removed": {"/etc/gone": "f---"}}
    assert integrity.check(compared.root) == []
    assert compared.known() == "as it is"


@pytest.mark.parametrize("before", [3600, 400])
def test_what_changed_after_they_had_ended_is_a_finding(compared, before):
    compared.put("/etc/passwd")
    history.record(compared.root, 1, "id", "committed", began=now() - before - 60)
    rows = history.read(compared.root)
    files.write_json(compared.root.state("history.json"), [{**rows[0], "time": now() - before}])
    compared.apt(now() - before - 60, now() - before)
    compared.report = {"changed": {"/etc/passwd": "f > ...     H      "}}
    assert [row.path for row in integrity.check(compared.root)] == ["/etc/passwd"]


def test_a_look_right_after_a_change_leaves_no_time_to_hide_in(compared):
    """While a commit tidies up nothing is looked at; once somebody has looked, what comes later is a finding."""
    history.record(compared.root, 1, "id", "committed", began=now() - 120)
    rows = history.read(compared.root)
    files.write_json(compared.root.state("history.json"), [{**rows[0], "time": now() - 60}])
    compared.put("/etc/passwd")
    compared.report = {"changed": {"/etc/passwd": "f > ...     H      "}}
    assert [row.path for row in integrity.check(compared.root)] == ["/etc/passwd"]


def test_nothing_is_looked_at_while_kos_changes_the_machine(compared):
    journal = Journal(compared.root)
    journal.start(token="x", generation=1)
    journal.write("prepared")
    assert integrity.check(compared.root) is None
    assert compared.verbs == []


def test_a_look_that_a_change_overtook_counts_nothing(compared):
    compared.put("/etc/hosts")
    compared.report = {"changed": {"/etc/hosts": "f > ...     H      "}}
    compared.while_reading = lambda: history.record(compared.root, 2, "id", "committed", began=now())
    assert integrity.check(compared.root) is None
    assert compared.known() == "as it was"


def test_rules_that_somebody_altered_are_not_used(compared):
    """Else who changed a file would leave it out."""
    compared.put(integrity.CONFIGURATION, b"!/etc")
    with pytest.raises(NodeError, match="nothing was compared: kai deploy"):
        integrity.check(compared.root)
    assert compared.verbs == []
    assert "kos_integrity_failed 1\n" in compared.figures()
    assert any("not as the generation has it" in line for line, _fix in integrity.findings(compared.root, MANIFEST))


def test_an_aide_that_fails_has_not_found_that_all_is_well(compared):
    compared.code = 18
    with pytest.raises(NodeError, match="AIDE failed: ERROR: broken"):
        integrity.check(compared.root)
    assert "kos_integrity_compared_timestamp_seconds 0\n" in compared.figures()
    assert compared.known() == "as it was"


def test_a_node_without_it_has_nothing_to_say(compared):
    compared.put("/etc/hosts")
    compared.report = {"changed": {"/etc/hosts": "f > ...     H      "}}
    integrity.check(compared.root)
    without = {"services": [], "files": []}
    assert integrity.summary(compared.root, without) is None
    assert integrity.findings(compared.root, without) == []
