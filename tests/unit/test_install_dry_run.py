# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kos-install --dry-run` as a person and a program see it."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import sys
from pathlib import Path

import pytest
import yaml
from golden_installs import MACHINES
from installs import DESK, Told

from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from kos_install import alone, console, intended, localities, main, medium, preflight, resolving, unattended
from kos_install.answers import FORGOTTEN, Answers, schema
from kos_install.engine import this_machine
from kos_install.errors import Unplannable
from kos_install.hardware.facts import facts
from kos_install.hardware.model import Disk, Machine

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP somebody@somewhere"
LEAST = {"version": 1, "user": {"ssh_keys": [KEY]}}


@pytest.fixture
def system(tmp_path):
    """A system that has a list of each."""
    for name, content in {
        "zoneinfo/UTC": "TZif2", "zoneinfo/Europe/Berlin": "TZif2", "i18n/SUPPORTED": "de_DE.UTF-8 UTF-8\n",
        "X11/xkb/rules/base.lst": "! layout\n  us              English (US)\n",
    }.items():  # fmt: skip
        path = tmp_path / "usr/share" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


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


@pytest.mark.parametrize("other", [("--remote", "x"), ("--json",), ("--dry-run",), ("--plain",)])
@pytest.mark.parametrize("alone", ["--schema", "--verify"])
def test_what_does_not_belong_to_a_schema_or_a_proof_is_not_ignored(run, alone, other):
    code, out, err = run(alone, *other, answers=None)
    assert code == 2 and out == "" and f"{alone} goes with no other option" in err


def test_the_schema(run):
    assert run("--schema", answers=None) == (0, schema(), "")


def answers(**more):
    return Answers.model_validate({**LEAST, **more})


DISK = Disk(path="/dev/vda", size=100 * 10**9, serial="kos-disk")
HERE = Machine(disks=[DISK])
ASKED = {"profile": "development"}


def service(name, capability="vector_db"):
    return {"settings": {"services": {capability: name}}}


def test_the_minimum_is_that_of_the_profile(run):
    minimum = preflight.circumstances(answers(profile="personal_node"), HERE, attended=True, record={}).minimum
    assert minimum is not None and minimum.memory_mb
    assert preflight.circumstances(answers(), HERE, attended=True, record={}).minimum is None
    record = {"profile": "enterprise", "minimum": {"disk_gb": 7}}
    assert preflight.circumstances(answers(), HERE, attended=True, record=record).minimum.disk_gb == 7
    assert preflight.circumstances(answers(), HERE, attended=True, record=record).test is False
    assert preflight.circumstances(answers(), HERE, attended=True, record={"test": True}).test is True


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"profile": "enterprize"}, "did you mean 'enterprise'?"),
        ({"profile": "enterprise", "settings": {"servces": {}}}, "settings.servces: unknown key"),
        ({"profile": "enterprise", "environment": "nowhere"}, "nowhere"),
        ({"settings": {"services": {}}}, "settings and environment need a profile"),
        ({**ASKED, **service("quadrant")}, "settings.services.vector_db: this release's catalogue has no service"),
        ({**ASKED, **service("kafkaa", "message_bus")}, "(did you mean 'kafka'?)"),
        ({**ASKED, **service(["caddy", "nginx"], "gateway")}, "settings.services.gateway: a node has one gateway"),
        (
            {**ASKED, "settings": {"orchestration": {"substrate": {"caddi": "deb"}}}},
            "settings.orchestration.substrate.caddi: no service is called 'caddi'",
        ),
    ],
)
def test_a_configuration_that_is_wrong_is_found_before_any_disk_is_touched(run, more, said):
    """Complaints 4 and 10."""
    with pytest.raises(ConfigurationError) as caught:
        preflight.circumstances(answers(**more), HERE, attended=True, place="answers.yaml", record={})
    assert said in str(caught.value) and "kos-install-" not in str(caught.value)
    code, out, err = run(*described("vm_virtio"), answers={**LEAST, **more})
    assert code == 3 and out == "" and said in err


def test_a_wrong_service_is_told_as_by_every_other_door(run, tmp_path):
    (tmp_path / "layer.yaml").write_text("services:\n  vector_db: quadrant\n")
    request = assemble.Request("development", user=tmp_path / "layer.yaml")
    with pytest.raises(ConfigurationError) as caught:
        assemble.plan(request, facts(HERE, disk_gb=100))
    (fault,) = caught.value.faults
    assert fault.message in run(*described("vm_virtio"), answers={**LEAST, **ASKED, **service("quadrant")})[2]
    code, out, _err = run("--json", *described("vm_virtio"), answers={**LEAST, **ASKED, **service("quadrant")})
    (told,) = json.loads(out)["faults"]
    assert code == 3 and told["line"] and told["fix"] == fault.fix == "did you mean 'qdrant'?"


def test_a_service_is_judged_by_the_machine_that_is_described(run, tmp_path):
    """Of two machines that differ in their GPU alone, one cannot run what is insisted on."""
    insisted = {"services": {"llm_backend": "vllm"}, "orchestration": {"insist": ["llm_backend"]}}
    said = {}
    for makers in ([], ["nvidia"]):
        (tmp_path / "m.json").write_text(Machine(gpu=makers, disks=[DISK]).model_dump_json())
        hardware = ("--hardware", str(tmp_path / "m.json"), "--dry-run")
        said[len(makers)] = run(*hardware, answers={**LEAST, **ASKED, "settings": insisted})[2]
    without = "it cannot run: it needs a GPU, and this machine has none"
    assert without in said[0] and without not in said[1]


MEDIUM = {"profile": "development", "minimum": {"disk_gb": 7}}


@pytest.mark.parametrize("more", [service("quadrant"), {**service("quadrant"), "profile": "personal_node"}])
def test_a_medium_plans_no_wrong_service_for_its_machine_and_asks_no_network(monkeypatch, more):
    """Complaint 4 where it hurts: an engine that plans nothing can be told to wipe nothing."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.setattr(medium, "record", lambda: MEDIUM)
    monkeypatch.setattr(localities, "unknown", lambda *_: [])
    told = Told(world=dataclasses.replace(this_machine.world(), detect=lambda: DESK, found=lambda _machine: None))
    asked = {**LEAST, "storage": {"disk": {"serial": "WD-1"}}}
    told.ask("answer", answers={**asked, **more})
    (refusal,) = told.ask("plan")
    assert refusal["event"] == "refused" and "settings.services.vector_db" in refusal["faults"][0]
    assert told.engine.state == "answering" and told.ask("confirm", digest="", typed="")[0]["event"] == "refused"
    told.ask("answer", answers=asked)
    assert told.ask("plan")[0]["event"] == "plan", "without the wrong service it is planned"


def test_what_the_medium_was_made_for_is_not_resolved_again(monkeypatch):
    """It was when the medium was made; a machine that starts from it has two slow cores, may be."""
    monkeypatch.setattr(resolving, "planned", lambda *_: pytest.fail("it would be slow"))
    assert preflight.circumstances(answers(), HERE, attended=True, record=MEDIUM).minimum.disk_gb == 7


EXAMPLE = str(MACHINES.parents[2] / "installer" / "answers.example.yaml")


def test_the_example_lacks_nothing_on_a_laptop_but_a_key_of_ones_own(run):
    code, out, err = run("--answers", EXAMPLE, *described("windows11_laptop"), answers=None)
    alone = out.partition("Nobody could leave it alone with these answers:\n")[2]
    assert (code, err) == (0, "") and alone.count("  - ") == 1 and "whose other half nobody has" in alone
    code, out, err = run("--answers", EXAMPLE, "--unattended", *described("windows11_laptop"), answers=None)
    assert code == 4 and out == "" and "whose other half nobody has" in err
    with pytest.raises(Unplannable, match=r"user\.ssh_keys: it has the key of the example"):
        unattended.answer(Path(EXAMPLE))


ALONE = {**LEAST, "encryption": {"passphrase": {"credential": "x"}}, "confirm": {"wipe": ["kos-disk"]}}


def test_whether_nobody_need_watch_has_an_exit_code(run):
    assert run("--unattended", *described("vm_virtio"), answers=ALONE)[0] == 0
    code, out, err = run("--unattended", *described("vm_virtio"))
    assert code == 4 and out == "" and "nobody is there to type it" in err and "confirm.wipe" in err
    code, out, _err = run("--unattended", "--json", *described("vm_virtio"))
    assert code == 4 and not json.loads(out)["ok"] and len(json.loads(out)["faults"]) == 2
    assert run("--unattended", "--hardware", "x")[0] == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone", None, "cannot be read: No such file"),
        ("here", "", "shorter than 8 characters"),
        ("here", "password1\n", "too easy to guess"),
        ("here", "two of\nthem lines\n", "a line break"),
        ("/etc/passwd", None, "the file must lie beside the answers"),
        ("../here", "correct horse battery staple", "the file must lie beside the answers"),
    ],
)
def test_a_secret_in_a_file_is_judged_and_never_shown(run, tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    asked = {**LEAST, "encryption": {"passphrase": {"file": name}}}
    code, out, err = run(*described("vm_virtio"), answers=asked)
    assert code == 3 and out == "" and re.search(rf"answers\.yaml:\d: encryption\.passphrase: .*{said}", err)
    assert not content or content.strip() not in err
    code, out, _err = run("--json", *described("vm_virtio"), answers=asked)
    assert code == 3 and json.loads(out)["faults"][0]["line"]


def test_a_good_secret_in_a_file_is_not_shown_either(run, tmp_path):
    (tmp_path / "secret").write_text("correct horse battery staple\n")
    asked = {**LEAST, "encryption": {"passphrase": {"file": "secret"}}}
    for options in ((), ("--json",)):
        code, out, err = run(*options, *described("vm_virtio"), answers=asked)
        assert (code, err) == (0, "") and "horse" not in out and "nchecked" not in out.replace('"unchecked": {}', "")


def test_it_shows_what_the_node_will_be(run):
    network = [
        {"match": "enp1s0", "dhcp": False, "addresses": ["192.0.2.7/24"], "gateway": "192.0.2.1", "vlan": {"id": 7}}
    ]
    asked = {**ALONE, "hostname": "attic", "profile": "personal_node", "keyboard": "ch(fr)", "network": network}
    code, out, _err = run(*described("windows11_laptop"), answers=asked)
    assert code == 0
    for part in (
        "Node      attic, profile personal_node",
        "keyboard ch(fr), locale C.UTF-8, time zone UTC",
        "User      kos with no password and these SSH keys:",
        "          SHA256:A5ft7Pj//TznF+pmmSnjHKPrzDA0ChbfoJlVxj/Yiak somebody@somewhere",
        "Network   enp1s0: 192.0.2.7/24, gateway 192.0.2.1, VLAN 7",
        "Opens by  a passphrase (credential x); a recovery key",
        "Unchecked encryption.passphrase (credential x): only the machine",
    ):
        assert part in out
    told = json.loads(run("--json", *described("windows11_laptop"), answers=asked)[1])["node"]
    assert told["hostname"] == "attic" and told["user"]["ssh_keys"][0].startswith("SHA256:A5ft7Pj")
    assert told["network"][0]["vlan"] == {"id": 7} and told["unchecked"] == {"encryption.passphrase": "credential x"}


def test_all_that_may_unlock_is_shown_and_fits(run):
    wifi = {"match": "wl*", "wifi": {"ssid": "attic", "passphrase": {"prompt": True}}}
    asked = Answers.model_validate({
        **LEAST,
        "encryption": {
            "tpm2": {"pin": {"prompt": True}}, "fido2": True, "remote_unlock": {"ssh_keys": [KEY], "port": 2222},
            "tang": {"url": "http://192.0.2.9", "thumbprint": "x" * 43},
        },
        "network": [{"dns": ["2001:db8::1"]}, wifi],
        "user": {"password_hash": FORGOTTEN},
    })  # fmt: skip
    text = "\n".join(intended.lines(asked, None))
    for part in (
        "the profile of the medium", "kos with a password, and no SSH key", "Wi-Fi attic", "name servers 2001:db8::1",
        "the TPM, with a PIN", "a FIDO2 key", "http://192.0.2.9", "port 2222, with SHA256:A5ft7Pj",
        "network[1].wifi.passphrase (typed)",
    ):  # fmt: skip
        assert part in " ".join(text.split())
    assert all(len(line) <= 79 for line in text.splitlines()) and FORGOTTEN not in text
    assert intended.node(asked, "x")["opens"][0] == "a passphrase (typed)"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"timezone": "Europe/Berln"}, "did you mean 'Europe/Berlin'?"),
        ({"keyboard": "deutsch"}, "no system is known to have 'deutsch'"),
        ({"locale": "de_DF.UTF-8"}, "did you mean 'de_DE.UTF-8'?"),
    ],
)
def test_a_slip_in_a_name_is_found_with_its_line(run, monkeypatch, system, more, said):
    monkeypatch.setattr(localities.doubtful, "__defaults__", (system,))
    code, out, err = run(*described("vm_virtio"), answers={**LEAST, **more})
    assert code == 3 and out == "" and said in err and re.search(r"answers\.yaml:\d: ", err)


@pytest.mark.parametrize(
    ("hardware", "replay", "code", "said"),
    [
        ("m.json", "README.md", 2, "README.md:1: this is no recorded progress"),
        ("m.json", "m.json", 2, "m.json:1: this is no recorded progress"),
        ("m.json", "list", 2, "list:1: this is no recorded progress"),
        ("m.json", "gone", 2, "gone cannot be read"),
        ("m.json", "begun", 2, "begun:1: this is no recorded progress"),
        ("m.json", "begun_so", 3, "hostnam: unknown key"),
        ("m.json", "bytes", 2, "bytes cannot be read: not UTF-8"),
        ("gone.json", "list", 3, "gone.json: cannot be read"),
    ],
)
def test_what_cannot_be_rehearsed_is_said_in_a_sentence(run, tmp_path, monkeypatch, hardware, replay, code, said):
    monkeypatch.setattr(console, "_engine", lambda *_: pytest.fail("an engine would start"))
    (tmp_path / "m.json").write_text((MACHINES / "bios_pc.json").read_text())
    (tmp_path / "README.md").write_text("# kOS\n")
    (tmp_path / "list").write_text('[1]\n{"kind": "wipe"}\n')
    (tmp_path / "begun").write_text('{"kind": "interrupted"}\n')
    wrong = {"kind": "interrupted", "answers": {**LEAST, "hostnam": "x"}}
    (tmp_path / "begun_so").write_text(json.dumps(wrong) + "\n")
    (tmp_path / "bytes").write_bytes(b"\xff\n")
    got, out, err = run("--hardware", str(tmp_path / hardware), "--replay", str(tmp_path / replay), answers=None)
    assert (got, out) == (code, "") and said in err and "Traceback" not in err


@pytest.mark.parametrize(("state", "code"), [("good", 0), ("broken", 1), ("unknown", 1)])
def test_a_medium_that_is_not_proved_is_not_well(run, monkeypatch, state, code):
    """Code 1 of docs/exit-codes.md: a question whose answer is not well."""
    monkeypatch.setattr(medium, "verify", lambda *_: medium.Verification(state))
    assert run("--verify", answers=None)[0] == code
