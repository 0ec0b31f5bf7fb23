# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where secrets come from: a credential, a file beside the answers, a person."""

from __future__ import annotations

import os
import traceback

import pytest
from golden_installs import answers
from installs import Told

from kos_install import secrets
from kos_install.engine import secrets as sent
from kos_install.errors import Unplannable

CANARY = "Kanarienvogel-4711"


def asked(**secret):
    return answers(encryption={"passphrase": secret})


def refused(*args, **more):
    with pytest.raises(Unplannable) as caught:
        secrets.resolve(*args, **more)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def test_all_of_them_have_names():
    wifi = {"match": "wl*", "wifi": {"ssid": "my home", "passphrase": {"credential": "wifi"}}}
    everything = answers(
        encryption={"passphrase": {"prompt": True}, "tpm2": {"pin": {"file": "pin"}}}, network=[{}, wifi]
    )
    assert {name: key for name, (key, _secret) in secrets.wanted(everything).items()} == {
        "passphrase": "encryption.passphrase",
        "tpm2_pin": "encryption.tpm2.pin",
        "wifi:my home": "network[1].wifi.passphrase",
    }


def test_a_file_beside_the_answers(tmp_path):
    (tmp_path / "pass").write_text(f"{CANARY}\n")
    assert secrets.resolve(asked(file="pass"), tmp_path) == {"passphrase": CANARY}
    (tmp_path / "pass").write_bytes(f"{CANARY}\r\n".encode())
    assert secrets.resolve(asked(file="pass"), tmp_path) == {"passphrase": CANARY}


def test_a_credential_of_the_service_comes_before_one_of_the_machine(tmp_path, monkeypatch):
    service, machine = tmp_path / "service", tmp_path / "machine"
    for folder, text in ((service, "of the service 7"), (machine, "of the machine 7")):
        folder.mkdir()
        (folder / "disk").write_text(text)
    monkeypatch.setattr(secrets, "_OF_SYSTEM", machine)
    environment = {"CREDENTIALS_DIRECTORY": str(service)}
    assert secrets.resolve(asked(credential="disk"), tmp_path, None, environment) == {"passphrase": "of the service 7"}
    assert secrets.resolve(asked(credential="disk"), tmp_path, None, {}) == {"passphrase": "of the machine 7"}
    assert "there is no credential other" in refused(asked(credential="other"), tmp_path, None, environment)


def test_a_person_is_asked_by_the_key(tmp_path):
    heard = []
    assert secrets.resolve(asked(prompt=True), tmp_path, lambda key: heard.append(key) or CANARY) == {
        "passphrase": CANARY
    }
    assert heard == ["encryption.passphrase"]
    assert "nobody is there to type it" in refused(asked(prompt=True), tmp_path)


@pytest.mark.parametrize("name", ["../pass", "/etc/hostname", "a/../../pass"])
def test_nothing_outside_the_folder_is_read(tmp_path, name):
    (tmp_path / "pass").write_text(CANARY)
    inner = tmp_path / "answers"
    inner.mkdir()
    assert "must lie beside the answers" in refused(asked(file=name), inner)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "shorter than 8"),
        (b"seven77\n", "shorter than 8"),
        (CANARY.encode() + b"\nsecond line\n", "line break"),
        (CANARY.encode() + b"\0", "control character"),
        (CANARY.encode() + b"\xff", "not UTF-8"),
        (CANARY.encode() * 40, "longer than 512"),
    ],
)
def test_what_could_not_be_typed_is_no_secret(tmp_path, content, said):
    (tmp_path / "pass").write_bytes(content)
    assert said in refused(asked(file="pass"), tmp_path)


def test_letters_of_all_languages_can_be_typed(tmp_path):
    (tmp_path / "pass").write_text("Füße-und-Öl")
    assert secrets.resolve(asked(file="pass"), tmp_path)["passphrase"] == "Füße-und-Öl"


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pass")
    assert "no regular file" in refused(asked(file="pass"), tmp_path)
    assert "cannot be read: No such file" in refused(asked(file="none"), tmp_path)


def test_all_that_is_missing_is_told_at_once(tmp_path):
    both = answers(encryption={"passphrase": {"file": "a"}, "tpm2": {"pin": {"file": "b"}}})
    said = refused(both, tmp_path)
    assert "encryption.passphrase: " in said and "encryption.tpm2.pin: " in said


RULES = [
    ("passphrase", "password", "too easy to guess"),
    ("passphrase", "x7!kQ", "shorter than 8"),
    ("tpm2_pin", "12345", "shorter than 6"),
    ("wifi:home", "x" * 64, "longer than 63"),
    ("wifi:home", "1234567", "shorter than 8"),
    ("passphrase", CANARY, ""),
    ("tpm2_pin", "123456", ""),
    ("password_hash", "", "shorter than 1"),
    ("password_hash", "$6$salt$" + "a" * 86, ""),
    ("wifi:home", "12345678", ""),
]


@pytest.mark.parametrize(("name", "text", "said"), RULES)
def test_one_rule_holds_for_every_way_in(tmp_path, name, text, said):
    assert said in secrets.fault(name, text) and bool(secrets.fault(name, text)) is bool(said)
    told = Told()
    (*_, last) = told.ask("secret", name=name, value=text) or [{"event": "nothing"}]
    assert (last["event"] == "refused") is bool(said) and (not text or text not in str(last))


def test_a_weak_passphrase_in_a_file_is_refused(tmp_path):
    (tmp_path / "pass").write_text("password\n")
    assert "too easy to guess" in refused(asked(file="pass"), tmp_path)


def test_accents_that_a_system_sends_apart_are_what_a_console_types(tmp_path):
    (tmp_path / "pass").write_text("Zu\u0308rich-zypresse-yeti\n")
    found = secrets.resolve(asked(file="pass"), tmp_path)
    assert found["passphrase"] == sent.value("passphrase", "Zu\u0308rich-zypresse-yeti") == "Z\u00fcrich-zypresse-yeti"
