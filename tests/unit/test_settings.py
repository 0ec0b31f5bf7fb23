# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of the machine: set, remembered as they were, given back; here the kernel's are files of a directory."""

from __future__ import annotations

import os
import stat
import subprocess
from types import SimpleNamespace

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import changes, daemons, files, settings, system
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.journal import Journal

REDIRECTS = "net/ipv4/conf/{}/accept_redirects"


def row(kind, name, value):
    return {"kind": kind, "name": name, "value": value, "service": "hardening", "tier": 0}


MANIFEST = {
    "settings": [
        row("sysctl", "net.ipv4.conf.*.accept_redirects", "0"),
        row("sysctl", "kernel.sysrq", "0"),
        row("mode", "/etc/crontab", "0600"),
        row("sysctl", "not.here", "1"),
    ]
}


@pytest.fixture
def root(tmp_path):
    values = {REDIRECTS.format(name): "1" for name in ("all", "default", "eth0.100")}
    for name, value in {**values, REDIRECTS.format("lo"): "0", "kernel/sysrq": "438"}.items():
        files.write(str(tmp_path / "proc/sys" / name), f"{value}\n".encode())
    files.write(str(tmp_path / "etc/crontab"), b"x\n", 0o644)
    return Root(str(tmp_path))


@pytest.fixture
def journal(root):
    found = Journal(root)
    found.start(token="t", previous=None, generation=1, id="x")
    return found


def wanted(root, manifest=MANIFEST):
    return [row.setting for row in settings.differing(root, manifest)]


def value(root, name):
    with open(root.join(f"/proc/sys/{name}"), encoding="ascii") as stream:
        return stream.read().strip()


def mode(root):
    return stat.S_IMODE(os.stat(root.join("/etc/crontab")).st_mode)


def test_a_pattern_stands_for_every_interface_and_what_is_right_or_absent_is_no_difference(root):
    assert [setting.name for setting in wanted(root)] == [
        *(REDIRECTS.format(name) for name in ("all", "default", "eth0.100")), "kernel/sysrq", "/etc/crontab",
    ]  # fmt: skip


def test_what_is_set_is_set_and_given_back_as_it_was(root, journal):
    settings.set_all(root, journal, wanted(root))
    assert wanted(root) == [] and value(root, "kernel/sysrq") == "0" and mode(root) == 0o600
    assert settings.unasked(root, MANIFEST) == []
    assert settings.give_back(root, journal, settings.unasked(root, {"settings": []})) == []
    assert value(root, "kernel/sysrq") == "438" and value(root, REDIRECTS.format("eth0.100")) == "1"
    assert mode(root) == 0o644 and not os.path.exists(root.state(settings.RECORD))


def test_a_rule_switched_off_gives_back_its_own_values_alone(root, journal):
    settings.set_all(root, journal, wanted(root))
    fewer = {"settings": MANIFEST["settings"][:1]}
    settings.give_back(root, journal, settings.unasked(root, fewer))
    assert value(root, "kernel/sysrq") == "438" and value(root, REDIRECTS.format("all")) == "0"
    assert settings.unasked(root, fewer) == []


def test_what_drifted_is_set_again_and_the_first_value_stays_remembered(root, journal):
    settings.set_all(root, journal, wanted(root))
    files.write(root.join("/proc/sys/kernel/sysrq"), b"1\n")
    (drifted,) = wanted(root)
    settings.set_all(root, journal, [drifted])
    settings.give_back(root, None, settings.unasked(root, None))
    assert value(root, "kernel/sysrq") == "438"


def test_a_transaction_that_is_taken_back_leaves_the_machine_as_it_was(root, journal):
    settings.set_all(root, journal, wanted(root))
    settings.take_back(root, Journal(root))
    for record in reversed(journal.of("file")):
        journal.restore(root, record)
    assert value(root, "kernel/sysrq") == "438" and mode(root) == 0o644
    assert settings.unasked(root, None) == []


def test_what_a_container_may_not_set_is_no_change_and_is_told_with_the_reason(root, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert wanted(root) == []
    told = {row["name"]: row["why"] for row in settings.not_here(root, MANIFEST)}
    assert "shares its kernel" in told["kernel/sysrq"] and REDIRECTS.format("lo") not in told


def test_a_value_that_the_kernel_keeps_is_told_and_forgotten(root, journal, monkeypatch):
    settings.set_all(root, journal, wanted(root))

    def refuse(_root, setting):
        raise settings.NotSet(f"{setting.name} does not take {setting.value}")

    monkeypatch.setattr(settings, "_put", refuse)
    left = settings.give_back(root, None, settings.unasked(root, None))
    assert any("kernel/sysrq" in sentence and "next start" in sentence for sentence in left)
    assert settings.unasked(root, None) == []


# --- who reads our files ---------------------------------------------------------------------------------------------

SSHD = {"name": "sshd", "unit": "ssh.service", "tell": ["reload"], "service": "hardening", "tier": 0}
PAM = {"name": "pam", "unit": None, "tell": ["pam-auth-update"], "service": "hardening", "tier": 0}


@pytest.fixture
def told(monkeypatch):
    seen = SimpleNamespace(argv=[], states=["active"], fails=False)

    def run(argv, **_options):
        seen.argv.append(argv)
        if seen.fails:
            raise system.CommandFailed("it does not want to")
        return subprocess.CompletedProcess(argv, 0, b"", b"")

    def unit_states(names, *_more):
        state = seen.states.pop(0) if len(seen.states) > 1 else seen.states[0]
        return {name: {"ActiveState": state} for name in names}

    monkeypatch.setattr(system, "run", run)
    monkeypatch.setattr(system, "unit_states", unit_states)
    monkeypatch.setattr(system, "journal_tail", lambda *_args: ["it says why"])
    return seen


def comparison():
    generation = SimpleNamespace(manifest={"daemons": [SSHD, PAM]})
    return SimpleNamespace(generation=generation, inputs={"sshd": "one", "pam": "two"})


def test_who_is_told_has_a_stamp_and_is_in_the_journal(root, journal, told):
    daemons.tell(root, journal, comparison(), ["sshd"])
    assert told.argv == [["reload"]] and journal.has("told", row=SSHD)
    assert files.read(changes.stamp_path(root, "sshd")) == b"one"


def test_one_that_does_not_run_reads_its_files_when_it_starts(root, journal, told):
    told.states = ["inactive"]
    daemons.tell(root, journal, comparison(), ["sshd", "pam"])
    assert told.argv == [["pam-auth-update"]]


def test_one_that_ends_over_its_new_files_fails_the_part_and_has_no_stamp(root, journal, told):
    told.states = ["active", "failed"]
    with pytest.raises(system.CommandFailed, match=r"ssh.service ended over its new files: it says why"):
        daemons.tell(root, journal, comparison(), ["sshd"])
    assert files.read(changes.stamp_path(root, "sshd")) is None


def test_going_back_tells_again_and_remembers_what_was_told_before(root, journal, told, monkeypatch):
    monkeypatch.setattr(changes, "compare", lambda *_args: SimpleNamespace(inputs={"sshd": "before"}))
    daemons.tell(root, journal, comparison(), ["sshd", "pam"])
    told.argv.clear()
    daemons.take_back(root, journal, SimpleNamespace())
    assert told.argv == [["reload"], ["pam-auth-update"]]
    assert files.read(changes.stamp_path(root, "sshd")) == b"before"
    assert files.read(changes.stamp_path(root, "pam")) is None


def test_who_is_let_go_and_does_not_listen_is_a_sentence(root, journal, told):
    told.fails = True
    assert daemons.let_go(root, journal, daemons.gone({"daemons": [SSHD]}, {"daemons": []})) == [
        "sshd: it does not want to"
    ]
    assert daemons.gone(None, {}) == [] and daemons.gone({"daemons": [SSHD]}, {"daemons": [SSHD]}) == []
