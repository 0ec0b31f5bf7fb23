# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service's own program is asked before its files are in place; here that program is a stand-in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import check, system
from ansible_collections.kind.kos.plugins.module_utils.node.changes import Comparison, Wanted

DOOR = {
    "name": "door", "tier": 1, "capabilities": ["gateway"], "user": "kos-door",
    "check": {"exec": ["door", "--test"], "packages": ["door"]},
}  # fmt: skip


def comparison(differs=True, missing=()):
    row = {"path": "/etc/kos/door/door.conf", "service": "door", "mode": "0644", "owner": "root", "group": "root"}
    sealed = {"path": "/etc/credstore.encrypted/kos-door.pw", "service": "door", "sealed": "pw"}
    wanted = [Wanted(row, b"port = 1\n", "", differs, True), Wanted(sealed, None, "", differs, True)]
    generation = SimpleNamespace(manifest={"services": [DOOR]})
    return Comparison(generation, wanted, {}, missing_packages=list(missing))


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What was run, and what its room held; `answer` is what it says."""
    seen = SimpleNamespace(argv=None, files={}, answer=(0, b""))

    def run(argv, **_options):
        bound = next(word for word in argv if word.startswith("BindReadOnlyPaths="))
        room = os.path.dirname(bound.split("=")[1].split(":")[0])
        seen.argv, seen.room = argv, room
        seen.files = {
            os.path.relpath(os.path.join(folder, name), f"{room}/etc"): Path(folder, name).read_bytes()
            for folder, _, names in os.walk(room)
            for name in names
        }
        return subprocess.CompletedProcess(argv, seen.answer[0], b"", seen.answer[1])

    monkeypatch.setattr(system, "run", run)
    monkeypatch.setattr(system, "Accounts", lambda _root: SimpleNamespace(ids=lambda _owner, _group: (-1, -1)))
    monkeypatch.setattr(check, "ROOMS", str(tmp_path / "rooms"))
    return seen


ROOT = SimpleNamespace(booted=True)


def test_the_program_sees_its_new_files_and_no_secret_in_a_room_that_goes(asked):
    check.check_files(ROOT, comparison())
    assert asked.files == {"door/door.conf": b"port = 1\n"}
    assert asked.argv[-3:] == ["--", "door", "--test"] and "--uid=kos-door" in asked.argv
    assert "PrivateNetwork=yes" in asked.argv and "ProtectSystem=strict" in asked.argv
    assert not os.path.exists(asked.room)


def test_what_it_says_is_what_the_operator_reads(asked):
    asked.answer = (1, b"door.conf:1: no such port\n")
    with pytest.raises(check.CheckFailed, match=r"door refuses its new files.*door\.conf:1: no such port"):
        check.check_files(ROOT, comparison())
    assert not os.path.exists(asked.room)


@pytest.mark.parametrize(
    ("changed", "part"),
    [({"differs": False}, None), ({"missing": ["door"]}, None), ({}, "kernel_extensions")],
)
def test_nobody_is_asked_in_vain(asked, changed, part):
    check.check_files(ROOT, comparison(**changed), part)
    assert asked.argv is None


def test_a_root_that_is_not_booted_has_nobody_to_ask(asked):
    check.check_files(SimpleNamespace(booted=False), comparison())
    assert asked.argv is None
