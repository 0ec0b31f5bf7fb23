# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which initrd the first entry gets, and what of remote unlocking lies where."""

from __future__ import annotations

import gzip
import os
from types import SimpleNamespace

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import files
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from kos_install.actions import initrds, target
from kos_install.answers import Answers

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP somebody@somewhere"


@pytest.fixture
def inside(monkeypatch):
    calls = []

    def run(folder, argv, stdin=""):
        calls.append(argv)
        if argv[0] == "dracut":
            files.write(str(folder) + argv[3], b"made here")
        return ""

    monkeypatch.setattr(target, "inside", run)
    return calls


def context(tmp_path, **encryption):
    answers = {"version": 1, "hostname": "box", "user": {"ssh_keys": [KEY]}, "encryption": encryption}
    (tmp_path / "target/boot").mkdir(parents=True)
    (tmp_path / "target/etc/console-setup").mkdir(parents=True)
    (tmp_path / "target/etc/console-setup/cached_UTF-8_del.kmap.gz").write_bytes(gzip.compress(b"keycode 21 = z"))
    return SimpleNamespace(answers=Answers.model_validate(answers), target=tmp_path / "target")


@pytest.fixture
def medium(tmp_path, monkeypatch):
    (tmp_path / "initrd").write_bytes(b"the medium's")
    monkeypatch.setattr(initrds, "_MEDIUM", str(tmp_path / "initrd"))


def test_without_a_wish_it_is_the_mediums_and_stays_in_the_target(tmp_path, inside, medium):
    made = context(tmp_path)
    root = Root(str(made.target))
    path = initrds.make(made, root, "6.12")
    assert path == root.join("/boot/initrd.img-6.12")
    made_of = files.read(path)
    assert made_of.startswith(b"the medium's070701"), "a kernel unpacks one behind the other, on a boundary of four"
    assert b"etc/kos/console.kmap" in made_of and b"keycode 21 = z" in made_of
    initrds.make_host_key(made, root)
    assert inside == []
    assert initrds.entries(made.answers) == []


def test_with_remote_unlocking_it_is_made_in_the_target_once(tmp_path, inside, medium):
    made = context(tmp_path, remote_unlock={"ssh_keys": [KEY], "port": 2222})
    root = Root(str(made.target))
    initrds.make_host_key(made, root)
    for _time in range(2):
        path = initrds.make(made, root, "6.12")
    assert files.read(path) == b"made here"
    assert os.stat(path).st_mode & 0o077 == 0
    assert [argv[0] for argv in inside] == ["ssh-keygen", "dracut"]
    texts = {entry.path: (entry.content, entry.mode) for entry in initrds.entries(made.answers)}
    assert texts == {
        "/etc/kos/unlock/authorized_keys": (f"{KEY}\n", 0o600),
        "/etc/kos/unlock/port": ("2222\n", 0o644),
    }


def test_the_key_of_the_locked_machine_is_none_of_the_systems(tmp_path, inside):
    made = context(tmp_path, remote_unlock={"ssh_keys": [KEY]})
    initrds.make_host_key(made, Root(str(made.target)))
    (argv,) = inside
    assert argv[-1] == "/etc/kos/unlock/ssh_host_ed25519_key"
