# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""FIDO2 and Tang: what is run, that no secret is in it, and that what was asked for must be in the header."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest
from installs import KEY

from ansible_collections.kind.kos.plugins.module_utils.node.machine import luks as headers
from kos_install.actions import keys, luks
from kos_install.answers import Answers
from kos_install.errors import ApplyFailed
from kos_install.storage.actions import Luks

PASSPHRASE = "correct horse battery"
TANG = {"url": "http://192.0.2.9:7500", "thumbprint": "x" * 43}


@pytest.fixture
def header(monkeypatch):
    """A header that takes a token whenever a program adds one."""
    made = {"tokens": {}, "runs": []}

    def run(argv, *, log=None, stdin="", files=()):
        secret = stdin or (os.pread(files[0], 99, 0).decode() if files else "")
        made["runs"].append((argv, secret))
        kind = headers.FIDO2 if argv[0] == "systemd-cryptenroll" else headers.TANG
        number = str(len(made["tokens"]) + 1)
        made["tokens"][number] = {"type": kind, "keyslots": [number]}

    monkeypatch.setattr(keys, "run", run)
    monkeypatch.setattr(luks, "dump", lambda _device: made)
    return made


def context(**encryption):
    answers = {"version": 1, "user": {"ssh_keys": [KEY]}, "encryption": encryption}
    one = Luks(
        id="luks", device="/dev/sda4", name="kos-root", uuid="u", memory_kib=65536, iterations=4, threads=1,
        recovery_key=True,
    )  # fmt: skip
    return SimpleNamespace(
        answers=Answers.model_validate(answers), plan=SimpleNamespace(actions=[one]), log=lambda _text: None,
        secrets={"passphrase": PASSPHRASE},
    )  # fmt: skip


def test_without_a_wish_nothing_is_run(header):
    keys.give(context())
    assert header["runs"] == []


def test_both_are_given_once_and_the_passphrase_is_in_no_command(header):
    asked = context(fido2=True, tang=TANG)
    for _time in range(2):
        keys.give(asked)
    fido2, tang = header["runs"]
    assert fido2[0][0] == "systemd-cryptenroll"
    assert "--fido2-device=auto" in fido2[0]
    assert tang[0][:8] == ["clevis", "luks", "bind", "-y", "-k", "-", "-d", "/dev/sda4"]
    assert json.loads(tang[0][-1]) == {"url": TANG["url"], "thp": TANG["thumbprint"]}
    assert [secret for _argv, secret in header["runs"]] == [PASSPHRASE, PASSPHRASE]
    assert not any(PASSPHRASE in word for argv, _secret in header["runs"] for word in argv)
    assert headers.marked(header, headers.FIDO2, headers.TANG) == {"1", "2"}


def test_a_key_that_is_not_in_the_header_afterwards_is_an_error(header, monkeypatch):
    monkeypatch.setattr(keys, "run", lambda _argv, **_how: None)
    with pytest.raises(ApplyFailed, match="not in its header"):
        keys.give(context(fido2=True))
