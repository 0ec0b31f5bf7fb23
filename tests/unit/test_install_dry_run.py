# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kos-install --dry-run` as a person and a program see it."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from golden_installs import MACHINES

from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from kos_install import alone, main, preflight
from kos_install.answers import Answers, schema

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 somebody@somewhere"
LEAST = {"version": 1, "user": {"ssh_keys": [KEY]}}


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    def call(*options, answers=LEAST):
        if answers is not None:
            (tmp_path / "answers.yaml").write_text(yaml.safe_dump(answers))
            options = ("--answers", str(tmp_path / "answers.yaml"), *options)
        monkeypatch.setattr(sys, "argv", ["kos-install", *options])
        try:
            code = main.main()
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def described(name):
    return ("--hardware", str(MACHINES / f"{name}.json"), "--dry-run")


def test_it_shows_the_machine_the_disks_the_actions_and_what_to_think_of(run):
    code, out, err = run(*described("windows11_laptop"))
    assert code == 0 and err == ""
    for part in (
        "LENOVO 21HM, amd64, UEFI, Secure Boot on",
        "wlp2s0 (Wi-Fi)",
        "EVERYTHING ON THIS DISK IS LOST",
        "  2. WIPE /dev/nvme0n1",
        "Windows (NTFS) on partition 3 of /dev/nvme0n1 (250 GB) will be lost",
        "  - confirm.wipe does not name /dev/nvme0n1",
        "encryption.passphrase: nobody is there to type it",
        "Nothing was changed",
    ):
        assert part in out
    assert all(len(line) <= 79 for line in out.splitlines())


def test_it_tells_a_program_the_same(run):
    code, out, _err = run(*described("windows11_laptop"), "--json")
    told = json.loads(out)
    assert code == 0 and told["ok"] and told["wipes"] == ["/dev/nvme0n1"]
    assert told["plan"]["actions"][0]["kind"] == "release" and len(told["digest"]) == 64
    assert told["machine"]["name"] == "LENOVO 21HM" and told["before_after"] and len(told["unattended"]) == 2


def test_what_it_prints_describes_a_machine_again(run, tmp_path):
    _code, out, _err = run(*described("old_luks"), "--json")
    (tmp_path / "machine.json").write_text(json.dumps(json.loads(out)["machine"]))
    assert run("--hardware", str(tmp_path / "machine.json"), "--dry-run")[1] == run(*described("old_luks"))[1]


def test_answers_that_suffice_alone_are_told_as_such(run):
    alone = {**LEAST, "encryption": {"passphrase": {"credential": "x"}}, "confirm": {"wipe": ["kos-disk"]}}
    _code, out, _err = run(*described("vm_virtio"), answers=alone)
    assert "Nobody could leave it alone" not in out


def test_answers_that_are_wrong_are_3(run):
    code, out, err = run(*described("vm_virtio"), answers={**LEAST, "hostnam": "x"})
    assert code == 3 and out == "" and "answers.yaml:1: hostnam: unknown key (did you mean 'hostname'?)" in err
    code, out, _err = run(*described("vm_virtio"), "--json", answers={**LEAST, "hostnam": "x"})
    assert code == 3 and json.loads(out)["faults"][0]["key"] == "hostnam" and not json.loads(out)["ok"]


def test_a_machine_that_is_described_wrongly_is_3(run, tmp_path):
    (tmp_path / "m.yaml").write_text("disks:\n- path: /dev/sda\n  size: big\n")
    code, _out, err = run("--hardware", str(tmp_path / "m.yaml"), "--dry-run")
    assert code == 3 and "m.yaml:3: disks[0].size" in err


def test_what_cannot_be_planned_is_4(run):
    code, out, err = run(*described("equal_disks"))
    assert code == 4 and out == "" and "2 disks could take the system" in err and "PHAC2" in err
    code, out, _err = run(*described("equal_disks"), "--json")
    assert code == 4 and "2 disks" in json.loads(out)["faults"][0]["message"]


@pytest.mark.parametrize(
    "options", [("--hardware", "x.json"), ("--hardware", "x.json", "--replay", "y.jsonl"), ("--dry-run", "--bogus")]
)
def test_wrong_use_is_2(run, options, monkeypatch):
    """Where another machine is described or rehearsed on, this one is not installed, whatever else was forgotten."""
    monkeypatch.setattr(alone, "main", lambda *_: pytest.fail("this machine would be installed"))
    code, out, err = run(*options)
    assert code == 2 and out == "" and "usage: kos-install" in err
    code, _out, _err = run("--dry-run", answers=None)
    assert code == 2


def test_the_schema(run):
    assert run("--schema", answers=None) == (0, schema(), "")


def answers(**more):
    return Answers.model_validate({**LEAST, **more})


def test_the_minimum_is_that_of_the_profile(run):
    minimum = preflight.circumstances(answers(profile="personal_node"), attended=True, record={}).minimum
    assert minimum is not None and minimum.memory_mb
    assert preflight.circumstances(answers(), attended=True, record={}).minimum is None
    record = {"profile": "enterprise", "minimum": {"disk_gb": 7}}
    assert preflight.circumstances(answers(), attended=True, record=record).minimum.disk_gb == 7
    assert preflight.circumstances(answers(), attended=True, record=record).test is False
    assert preflight.circumstances(answers(), attended=True, record={"test": True}).test is True


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"profile": "enterprize"}, "did you mean 'enterprise'?"),
        ({"profile": "enterprise", "settings": {"servces": {}}}, "settings.servces: unknown key"),
        ({"profile": "enterprise", "environment": "nowhere"}, "nowhere"),
        ({"settings": {"services": {}}}, "settings and environment need a profile"),
    ],
)
def test_a_configuration_that_is_wrong_is_found_before_any_disk_is_touched(run, more, said):
    """Complaints 4 and 10."""
    with pytest.raises(ConfigurationError) as caught:
        preflight.circumstances(answers(**more), attended=True, place="answers.yaml", record={})
    assert said in str(caught.value) and "kos-install-" not in str(caught.value)
    code, out, err = run(*described("vm_virtio"), answers={**LEAST, **more})
    assert code == 3 and out == "" and said in err


def test_the_example_installs_alone_on_a_laptop(run):
    example = str(MACHINES.parents[2] / "installer" / "answers.example.yaml")
    code, out, err = run("--answers", example, *described("windows11_laptop"), answers=None)
    assert (code, err) == (0, "") and "Nobody could leave it alone" not in out
