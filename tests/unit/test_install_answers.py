# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of answers: strict, and silent about what may be a secret."""

from __future__ import annotations

import json
import logging
import re
import traceback
from pathlib import Path

import pytest
import yaml

from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError, Place
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse
from kos_install import answers as answered
from kos_install import preflight
from kos_install.answers import Answers
from kos_install.hardware.model import Machine

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP somebody@somewhere"
LEAST = {"version": 1, "user": {"ssh_keys": [KEY]}}
EXAMPLE = Path(__file__).resolve().parents[2] / "installer" / "answers.example.yaml"
CANARY = "Kanarienvogel-4711"
HASH = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"


def load(tmp_path, data, name="answers.yaml"):
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return answered.load(path)


def faults(tmp_path, data, name="answers.yaml"):
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, data, name)
    return caught.value


def test_the_least_that_suffices(tmp_path):
    asked = load(tmp_path, LEAST)
    assert asked.storage.layout == "whole_disk" and asked.encryption.passphrase.prompt and asked.confirm.wipe == []
    assert load(tmp_path, {**LEAST, "user": {"password_hash": HASH}}).user.password_hash == HASH


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({**LEAST, "encrypt": {}}, "encrypt: unknown key (did you mean 'encryption'?)"),
        ({**LEAST, "encryption": {"passphrases": {"prompt": True}}}, "did you mean 'passphrase'?"),
        ({**LEAST, "storage": {"disk": {"name": "sda"}}}, "storage.disk.name: unknown key"),
        ({**LEAST, "version": 2}, "version"),
        ({"user": LEAST["user"]}, "version: required and missing"),
        ({"version": 1}, "nobody could log in"),
        ({**LEAST, "storage": {"layout": "mirror"}}, "a mirror, and nothing else, has a second disk"),
        ({**LEAST, "storage": {"layout": "raid"}}, "storage.layout"),
        ({**LEAST, "encryption": None}, "encryption"),
        ({**LEAST, "encryption": {"secure_boot": False}}, "encryption.secure_boot"),
        ({**LEAST, "user": {"password_hash": "hunter2"}}, "make one with mkpasswd"),
        ({**LEAST, "version": "1"}, "version: write version: 1"),
        ({**LEAST, "user": {"password": "hunter2", "ssh_keys": [KEY]}}, "put what mkpasswd makes of it"),
        ({**LEAST, "storage": {"disk": {"serial": 12345}}}, "storage.disk.serial: it is no text: put it in quotes"),
        ({**LEAST, "confirm": {"wipe": "S675NF0R"}}, "confirm.wipe: it is a list, also of one disk: ["),
        ({**LEAST, "confirm": {"wipe": [12345]}}, "put it in quotes"),
        ({**LEAST, "network": [{"addresses": ["here"]}]}, "network[0].addresses[0]: no address with the length"),
        ({**LEAST, "network": [{"match": "a b"}]}, "network[0].match: the name of a network card"),
        ({**LEAST, "encryption": {"passphrase": {"credential": "a b"}}}, "the name of a credential"),
        ({**LEAST, "encryption": {"tang": {"url": "tang", "thumbprint": "x" * 43}}}, "such as http://192.0.2.9"),
        ({**LEAST, "encryption": {"tang": {"url": "http://t", "thumbprint": "x"}}}, "what tang-show-keys prints"),
        (
            {**LEAST, "network": [{"vlan": {"id": 7}}, {"match": "eth0", "vlan": {"id": 7}}]},
            "VLAN 7 is asked for twice",
        ),
    ],
)
def test_what_is_wrong_is_fatal_and_has_its_place(tmp_path, data, said):
    """Complaints 2, 5 and 10: a key that is not understood never means *without encryption*."""
    error = faults(tmp_path, data)
    assert said in str(error) and "answers.yaml" in str(error) and "should match pattern" not in str(error)


# Everything that somebody may write a password into, by mistake or because other installers take it there.
LEAKS = {
    "hash": {"user": {"password_hash": CANARY}},
    "password": {"user": {"password": CANARY, "ssh_keys": [KEY]}},
    "user": {"user": f"root:{CANARY}"},
    "key": {"user": {"ssh_keys": [f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}"]}},
    "passphrase": {"encryption": {"passphrase": CANARY}},
    "passphrase in a list": {"encryption": {"passphrase": [CANARY]}},
    "encryption": {"encryption": CANARY},
    "prompt": {"encryption": {"passphrase": {"prompt": CANARY}}},
    "credential": {"encryption": {"passphrase": {"credential": f"{CANARY} {CANARY}"}}},
    "both": {"encryption": {"passphrase": {"file": CANARY, "credential": "x"}}},
    "pin": {"encryption": {"tpm2": {"pin": CANARY}}},
    "wifi": {"network": [{"wifi": {"ssid": "home", "passphrase": CANARY}}]},
    "interface": {"network": [CANARY]},
    "url": {"encryption": {"tang": {"url": f"ftp://me:{CANARY}@tang", "thumbprint": CANARY}}},
    "literal": {"storage": {"layout": CANARY}},
    "language": {"language": CANARY},
    "after": {"after": CANARY},
    "settings": {"settings": CANARY},
    "wipe": {"confirm": {"wipe": CANARY}},
}


@pytest.mark.parametrize("where", LEAKS)
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_no_fault_shows_what_was_written(tmp_path, where, suffix):
    """Complaint 3: a passphrase in the log. The traceback counts as well: somebody will log one."""
    data = {**LEAST, **LEAKS[where]}
    error = faults(tmp_path, json.dumps(data) if suffix == "json" else data, f"answers.{suffix}")
    told = "".join([str(error), *traceback.format_exception(error), *(str(fault.as_dict()) for fault in error.faults)])
    assert CANARY not in told and CANARY[:8] not in told


@pytest.mark.parametrize("where", LEAKS)
def test_neither_do_those_of_answers_that_come_over_a_socket(where):
    with pytest.raises(ConfigurationError) as caught:
        parse(Answers, {**LEAST, **LEAKS[where]}, lambda _path: Place("answers"))
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        f"version: 1\nuser: {{password_hash: !{CANARY}}}\n",
        f"version: 1\nuser:\n  password_hash: *{CANARY}\n",
        f"version: 1\nuser:\n  password_hash: &{CANARY}\n",
        f"version: 1\nuser:\n  password_hash: '{CANARY}\n",
        f'version: 1\nuser:\n  password_hash: "{CANARY}\\q"\n',
        f"version: 1\nuser:\n  password_hash: @{CANARY}\n",
        f"version: 1\nuser:\n  password_hash: {CANARY}: {CANARY}\n",
        f"version: 1\nuser:\n\tpassword_hash: {CANARY}\n",
        "version: 1\nencryption: {tpm2: {pin: 0471}}\n",
        "version: 1\nencryption: {tpm2: {pin: 4_7_1}}\n",
    ],
)
def test_neither_do_faults_of_syntax(tmp_path, text):
    error = faults(tmp_path, text)
    told = "".join(traceback.format_exception(error))
    assert CANARY not in told and "0471" not in told and "4_7_1" not in told
    assert "answers.yaml" in str(error)


@pytest.mark.parametrize("text", [f'{{"version": 1, "user": {{"password_hash": "{CANARY}}}}}', f'{{"x": {CANARY}}}'])
def test_neither_do_those_of_json(tmp_path, text):
    assert CANARY not in "".join(traceback.format_exception(faults(tmp_path, text, "answers.json")))


def test_neither_do_those_of_toml(tmp_path):
    for text in (f"version = 1\n[user]\npassword_hash = {CANARY}\n", f'version = 1\npassword = "{CANARY}\n'):
        assert CANARY not in "".join(traceback.format_exception(faults(tmp_path, text, "answers.toml")))


def test_no_answer_holds_a_secret_to_begin_with(tmp_path, caplog):
    """What the screens write and the journal keeps says where a secret comes from, never what it is."""
    caplog.set_level(logging.DEBUG)
    asked = load(tmp_path, {**LEAST, "encryption": {"passphrase": {"file": "pass"}}})
    assert asked.model_dump(mode="json")["encryption"]["passphrase"] == {
        "credential": None, "file": "pass", "prompt": False,
    }  # fmt: skip
    assert caplog.text == ""


def test_the_schema_is_json_schema_and_lets_nothing_else_in():
    read = json.loads(answered.schema())
    assert read["additionalProperties"] is False and "version" in read["required"]
    assert all(part.get("additionalProperties") is False for part in read["$defs"].values() if "properties" in part)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"user": {"name": "root", "ssh_keys": [KEY]}}, "user.name: it is an account or a group of the system"),
        ({"user": {"name": "sudo", "ssh_keys": [KEY]}}, "account or a group of the system"),
        ({"user": {"name": "_apt", "ssh_keys": [KEY]}}, "account or a group of the system"),
        ({"user": {"name": "kos-nats", "ssh_keys": [KEY]}}, "account or a group of the system"),
        ({"user": {"full_name": "A:B", "ssh_keys": [KEY]}}, "no colon and no comma"),
        ({"user": {"full_name": "A\nB", "ssh_keys": [KEY]}}, "line break or a control character"),
        ({"user": {"ssh_keys": [KEY + "\x1b[2J"]}}, "not the public key"),
        ({"user": {"ssh_keys": ["ssh-ed25519 AAAA… ada@office"]}}, "put your own there, one line of the file"),
        ({"user": {"ssh_keys": ["ssh-ed25519 ... ada@office"]}}, "an example of one"),
        ({"user": {"ssh_keys": [KEY[:-24]]}}, "cut off or changed"),
        ({"encryption": {"remote_unlock": {"ssh_keys": ["ssh-rsa AAAA"]}}}, "cut off or changed"),
        ({"hostname": "Foo.bar"}, "hostname: small letters, digits and -, such as attic"),
        ({"user": {"name": "Ada", "ssh_keys": [KEY]}}, "user.name: small letters"),
        ({"locale": "de_DE"}, "locale: a locale in UTF-8, such as de_DE.UTF-8"),
        ({"language": "fr"}, "language: what is written is not a value of this key (known: de, en)"),
        ({"keyboard": "Deutsch"}, "keyboard: a keyboard as XKB calls it"),
        ({"timezone": "Berlin time"}, "timezone: a time zone by its name"),
        ({"encryption": {"passphrase": "hunter2"}}, "no secret stands in this file: write {file: NAME}"),
        ({"encryption": {"passphrase": 12345678}}, "no secret stands in this file"),
        ({"encryption": {"tpm2": True}}, "encryption.tpm2: write {pin: {file: NAME}}"),
        ({"encryption": {"tpm2": {"pin": "123456"}}}, "encryption.tpm2.pin: no secret stands in this file"),
        ({"network": [{"wifi": {"ssid": "a", "passphrase": "hunter2x"}}]}, "no secret stands in this file"),
        ({"network": [{"vlan": 7}]}, "network[0].vlan: write its number as {id: 7}"),
        ({"storage": {"disk": "/dev/sda"}}, "storage.disk: say what the disk is known by, such as {serial:"),
        ({"environment": "a\nb"}, "line break"),
        ({"network": [{"gateway": "router"}]}, "network[0].gateway: no address"),
        ({"network": [{"gateway": "192.0.2.1\n[Route]"}]}, "no address"),
        ({"network": [{"dns": ["999.0.0.1"]}]}, "no address"),
        ({"network": [{"addresses": ["192.0.2.7/99"]}]}, "with the length of its network"),
        ({"network": [{"addresses": ["999.0.2.7/24"]}]}, "with the length of its network"),
        ({"network": [{"addresses": ["192.0.2.7/24"], "gateway": "198.51.100.1"}]}, "none of its networks"),
        ({"network": [{"addresses": ["192.0.2.7/32"], "gateway": "192.0.2.1", "dhcp": False}]}, "none of its networks"),
        ({"network": [{"addresses": ["2001:db8::7/64"], "gateway": "192.0.2.1", "dhcp": False}]}, "of its networks"),
        ({"network": [{"addresses": ["192.0.2.7/24"], "gateway": "192.0.2.7"}]}, "its own address"),
        ({"storage": {"disk": {"serial": ""}}}, "storage.disk.serial: it is empty"),
        ({"storage": {"disk": {"model": " "}}}, "storage.disk.model: it is empty"),
        ({"network": [{"wifi": {"ssid": "ü" * 20, "passphrase": {"prompt": True}}}]}, "32 bytes at most"),
        ({"network": [{"wifi": {"ssid": "a\tb", "passphrase": {"prompt": True}}}]}, "control character"),
    ],
)
def test_what_would_only_fail_on_the_wiped_disk_is_refused_at_once(tmp_path, more, said):
    with pytest.raises(ConfigurationError) as caught:
        parse(Answers, {**LEAST, **more}, lambda _path: Place("answers"))
    assert said in str(caught.value)


def test_real_names_and_addresses_are_taken(tmp_path):
    network = [{"addresses": ["192.0.2.7/24", "2001:db8::7/64"], "gateway": "192.0.2.1", "dns": ["2001:db8::1"]}]
    network += [{"gateway": "192.0.2.1"}, {"addresses": ["2001:db8::7/64"], "gateway": "fe80::1", "dhcp": False}]
    user = {"name": "anna", "full_name": "Änne Müller-Lüdenscheidt", "ssh_keys": [KEY]}
    assert load(tmp_path, {**LEAST, "network": network, "user": user}).user.name == "anna"


def test_the_same_node_has_one_digest_wherever_its_secrets_come_from(tmp_path):
    one = load(tmp_path, {**LEAST, "encryption": {"passphrase": {"file": "x"}}, "confirm": {"wipe": ["1"]}})
    two = load(tmp_path, {**LEAST, "encryption": {"recovery_key": False}, "after": "reboot"})
    other = load(tmp_path, {**LEAST, "hostname": "other"})
    hashed = load(tmp_path, {**LEAST, "user": {"password_hash": HASH}})
    assert hashed.digest() == hashed.forgetful().digest() != one.digest()
    assert one.digest() == two.digest() != other.digest()


def test_the_example_has_every_key_and_what_is_not_commented_out_is_good():
    text = EXAMPLE.read_text()
    assert answered.load(EXAMPLE).hostname == "attic"
    read = json.loads(answered.schema())
    keys = {key for part in (read, *read["$defs"].values()) for key in part.get("properties", ())}
    assert {key for key in keys if not re.search(rf"\b{key}:", text)} == set()
    words = {word for part in read["$defs"].values() for one in part["properties"].values() for word in _literals(one)}
    assert {word for word in words if not re.search(rf"\b{word}\b", text)} == set()


def _literals(part):
    return part.get("enum", []) + [word for one in part.get("anyOf", ()) for word in _literals(one)]


def test_what_the_example_has_commented_out_is_good_as_well():
    """Each line by itself, in the place of the key that it is another choice for."""
    lines, tried = EXAMPLE.read_text().splitlines(), 0
    for line in lines:
        key = re.match(r"(\s*)# ([a-z_0-9]+): \S", line)
        if key is None or key[2] in {"second", "password_hash"} or line.startswith("  #   "):
            continue
        others = [other for other in lines if not re.match(rf"{key[1]}{key[2]}:", other)]
        at = others.index(line)
        text = "\n".join([*others[:at], line.replace("# ", "", 1), *others[at + 1 :]])
        asked = parse(Answers, yaml.safe_load(text), lambda _path: Place("answers"))
        if key[2] in {"settings", "environment"}:
            preflight.circumstances(asked, Machine(), attended=True, record={})
        tried += 1
    assert tried > 12
