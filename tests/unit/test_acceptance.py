# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the acceptance suite that need no node: what checks need, what is recorded, what is searched."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import doors
import leaks
import needs
import observe
import pytest
from vantage import Vantage

from ansible_collections.kind.kos.plugins.module_utils.node import merkle

SUITE = Path(__file__).resolve().parents[1] / "acceptance"
CONTAINER = {"place": {"container": "systemd-nspawn", "machine": "none", "crypt": {"/home": False}}}
MACHINE = {"place": {"container": "none", "machine": "qemu", "crypt": {"/home": True}}}
SHUT = "not shown"
ABOUT = {"node": "attic", "place": "vm", "profile": "server", "generation": "ab" * 32}


# --- needs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "wanted", "why"),
    [
        (CONTAINER, ["own kernel"], "somebody else's kernel"),
        (CONTAINER, ["encrypted disk"], "the disk of the node's system is not encrypted"),
        (CONTAINER, ["encrypted data"], "nothing of the node is encrypted"),
        ({"place": {"crypt": {"/home": False, "/var/lib/kos-nats": True}}}, ["encrypted data"], ""),
        (MACHINE, ["own kernel", "encrypted disk", "encrypted data"], ""),
        ({"may_restart": False}, ["restart"], "--restart"),
        ({"outside": None}, ["outside"], "SSH alone"),
        ({"outside": object(), "may_restart": True}, ["outside", "restart"], ""),
    ],
)
def test_what_is_missing_is_said(found, wanted, why):
    said = needs.hindrance(wanted, found)
    assert (why in said) if why else said == ""


def test_every_need_that_a_check_declares_is_known():
    marks = re.findall(r"mark\.needs\((.*)\)", "".join(path.read_text() for path in SUITE.glob("test_*.py")))
    declared = {name for mark in marks for name in re.findall(r'"([^"]+)"', mark)}
    assert declared == set(needs.NEEDS)


# --- reports ---------------------------------------------------------------------------------------------------------


def phase(check, outcome="passed", why="", seconds=1.0):
    return SimpleNamespace(
        user_properties=[("kos", {**ABOUT, "check": check})],
        failed=outcome == "failed",
        skipped=outcome == "skipped",
        longrepr=("file", 1, f"Skipped: {why}"),
        duration=seconds,
    )


def recorder(folder, door="usb"):
    options = {"--door": door, "--reports": str(folder)}
    return doors.Recorder(SimpleNamespace(getoption=options.get))


def ended(made):
    lines = []
    made.pytest_terminal_summary(SimpleNamespace(write_line=lines.append))
    return lines


def test_a_report_says_what_ran_and_what_could_not(tmp_path):
    made = recorder(tmp_path)
    for row in (
        phase("test_a.py::test_good"),
        phase("test_a.py::test_good", seconds=0.5),
        phase("test_a.py::test_bad", "failed"),
        phase("test_a.py::test_bad"),
        phase("test_a.py::test_far", "skipped", "not shown here: too far away"),
        phase("test_a.py::test_absent", "skipped", "not in the plan: nats is not in the plan of server"),
        phase("test_a.py::test_odd", "skipped", "no reason of ours"),
    ):
        made.pytest_runtest_logreport(row)
    assert "not shown here: too far away: test_far" in ended(made)
    (report,) = doors.load(tmp_path)
    results = {name.partition("::")[2]: row["result"] for name, row in report.checks.items()}
    assert results == {
        "test_good": "passed", "test_bad": "failed", "test_far": "not shown", "test_absent": "not planned",
        "test_odd": "skipped",
    }  # fmt: skip
    assert report.checks["test_a.py::test_good"]["seconds"] == 1.5
    assert (report.door, report.place, report.node, report.generation) == ("usb", "vm", "attic", "ab" * 32)


def test_what_is_not_about_a_node_is_not_in_a_report(tmp_path):
    made = recorder(tmp_path)
    made.pytest_runtest_logreport(SimpleNamespace(user_properties=[], failed=False, skipped=False, duration=0.0))
    assert ended(made) == [] and doors.load(tmp_path) == []


def session(collected, code, only=False):
    return SimpleNamespace(
        testscollected=collected, exitstatus=code, config=SimpleNamespace(option=SimpleNamespace(collectonly=only))
    )


@pytest.mark.parametrize(
    ("ran", "asked", "code", "said"),
    [
        ([], session(64, 0), doors.NO_NODE, True),
        ([], session(64, 1), 1, True),
        ([], session(64, 0, only=True), 0, False),
        ([phase("test_a.py::test_good")], session(64, 0), 0, False),
    ],
)
def test_a_run_that_met_no_node_is_no_success(tmp_path, ran, asked, code, said):
    made = recorder(tmp_path)
    for row in ran:
        made.pytest_runtest_logreport(row)
    made.pytest_sessionfinish(asked)
    assert asked.exitstatus == code
    assert any("no node" in line for line in ended(made)) is said


def report(door, place, node, **results):
    checks = {
        f"test_a.py::{name}": {"result": result, "why": "a reason" if result == doors.NOT_SHOWN else "", "seconds": 1.0}
        for name, result in results.items()
    }
    return doors.Report(door, place, "server", node, "ab" * 32, 12.0, checks)


@pytest.fixture
def joined():
    return [
        report("usb", "vm", "stick", everywhere="passed", disk="passed", broken="passed", nowhere="not planned"),
        report("playbook", "nspawn", "one", everywhere="passed", disk="not shown", broken="failed", nowhere=SHUT),
        report("playbook", "nspawn", "two", everywhere="passed", disk="not shown", broken="passed"),
    ]


def test_the_table_has_a_column_for_each_door_and_counts_what_ran(joined):
    lines = doors.table(joined)
    cells = {line.split("  ")[0]: line for line in lines}
    assert lines[0].index("playbook (nspawn)") < lines[0].index("usb (vm)")
    assert re.search(r"ok 2 +ok 1$", cells["test_a.py::everywhere"])
    assert re.search(r"not shown +ok 1$", cells["test_a.py::disk"])
    assert re.search(r"FAILED +ok 1$", cells["test_a.py::broken"])
    assert cells["nodes"].split() == ["nodes", "2", "1"]
    assert cells["checks that ran"].split()[-2:] == ["2", "3"]
    assert cells["not shown here"].split()[-2:] == ["2", "0"]
    assert cells["not in the plan"].split()[-2:] == ["0", "1"]
    assert cells["seconds"].split() == ["seconds", "24", "12"]


def test_what_ran_behind_no_door_is_named(joined):
    assert doors.behind_none(joined) == ["test_a.py::nowhere"]
    said = doors.notes(joined)
    assert "ran behind no door: test_a.py::nowhere" in said
    assert "playbook (nspawn): not shown here: a reason: disk, nowhere" in said
    assert "FAILED behind playbook (nspawn): test_a.py::broken" in said


@pytest.mark.parametrize(
    ("results", "argv", "code"),
    [
        ({"a": "passed"}, [], 0),
        ({"a": "passed", "b": "not shown"}, [], 1),
        ({"a": "passed", "b": "not shown"}, ["--some"], 0),
        ({"a": "failed"}, ["--some"], 1),
    ],
)
def test_joining_fails_where_a_check_did_or_ran_nowhere(tmp_path, capsys, results, argv, code):
    report("cloud-init", "vm", "cloud", **results).save(tmp_path)
    assert doors.main([str(tmp_path), *argv]) == code
    assert "cloud-init (vm)" in capsys.readouterr().out
    assert doors.main([str(tmp_path), *argv, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["reports"][0]["node"] == "cloud"


def test_no_report_at_all_is_no_success(tmp_path, capsys):
    assert doors.main([str(tmp_path)]) == 2
    assert "--reports" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        ({"container": "systemd-nspawn", "machine": "none"}, "nspawn"),
        ({"container": "none", "machine": "qemu"}, "vm"),
        ({"container": "none", "machine": "none"}, "metal"),
    ],
)
def test_a_place_has_a_name(seen, name):
    assert doors.place(seen) == name


# --- the view from outside -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        ("", {"ansible_host": "192.0.2.7"}, ([], ["192.0.2.7"], 22)),
        ("", {"ansible_host": "192.0.2.7", "ansible_port": 2222}, ([], ["192.0.2.7"], 2222)),
        ("", {"ansible_host": "127.0.0.1", "ansible_port": 2222}, None),
        ("", {"ansible_host": "192.0.2.7", "ansible_ssh_common_args": "-o ProxyJump=gate"}, None),
        ("ssh gate", {"ansible_host": "127.0.0.1"}, (["ssh", "gate"], ["10.0.2.15"], 22)),
        (
            "",
            {"ansible_host": "10.9.8.7", "kos_lab_address6": "fd00::7", "kos_lab_network_namespace": "kos-x",
             "ansible_ssh_common_args": "-o ProxyCommand='nsenter …'"},
            (["nsenter", "--net=/run/netns/kos-x"], ["10.9.8.7", "fd00::7"], 22),
        ),
        ("", {}, None),
    ],
)  # fmt: skip
def test_a_stranger_stands_where_the_node_can_be_reached(words, variables, expected):
    found = Vantage.of(words, variables, ["10.0.2.15", "fe80::1"])
    assert (found and (list(found.words), list(found.addresses), found.ssh)) == expected


def test_a_scan_finds_who_listens_and_nobody_else():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # taken, so nobody else can listen there, and does not listen
        listening, silent = one.getsockname()[1], other.getsockname()[1]
        vantage = Vantage([], ["127.0.0.1"], 22)
        assert vantage.opened("127.0.0.1", {listening, silent}, {listening}) == {listening}
        # What is to answer and does not is asked again, and then told as it is.
        assert vantage.opened("127.0.0.1", {listening}, {silent}) == {listening}


# --- what the node is asked ------------------------------------------------------------------------------------------


def test_the_suites_merkle_root_is_that_of_the_node(tmp_path):
    """Two programs that were written apart agree, whatever the number of files."""
    content = {}
    for count in range(1, 8):
        name = f"tree/{count}/file"
        content[name] = f"content {count}".encode()
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(content[name])
        (tmp_path / "signature").write_text(f"of {count}")
        expected = merkle.root((path, merkle.digest(data)) for path, data in content.items())
        assert observe.merkle(str(tmp_path)) == expected


def test_a_secret_is_looked_for_as_it_is_by_its_longest_line_and_in_base64():
    assert leaks.forms(b"correct-horse-battery") >= {b"correct-horse-battery", b"Y29ycmVjdC1ob3JzZS1iYXR0"}
    key = b"-----BEGIN KEY-----\nshort\nthe-longest-line-of-it\n-----END KEY-----\n"
    assert b"the-longest-line-of-it" in leaks.forms(key)
    assert leaks.forms(b"too short") == set()


def test_two_keys_of_one_kind_are_not_taken_for_one_another(tmp_path):
    keys = []
    for name in ("one", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
        keys.append((tmp_path / name).read_bytes())
    for key, another in (keys, reversed(keys)):
        assert any(form in key for form in leaks.forms(key))
        assert not any(form in another for form in leaks.forms(key))


@pytest.mark.parametrize("before", ["", "u:", "kos:", "somebody else:"])
def test_a_secret_is_found_in_the_header_of_a_login(before):
    written = base64.b64encode(f"{before}correct-horse-battery".encode())
    assert any(form in written for form in leaks.forms(b"correct-horse-battery"))


def test_a_secret_across_two_pieces_is_found():
    secret = b"correct-horse-battery"
    stream = io.BytesIO(b"x" * (leaks.CHUNK - 5) + secret)
    assert any(secret in piece for piece in leaks.pieces(stream))
