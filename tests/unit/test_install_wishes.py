# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the installer leaves for the node's first starts, on real LUKS headers in plain files."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from installs import KEY

from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import enrol
from kos_install.actions import luks, target, wishes
from kos_install.answers import Answers
from kos_install.errors import ApplyFailed
from kos_install.storage.actions import Luks

PASSPHRASE, PIN = "correct horse battery", "2468"
UUID = "12345678-1234-1234-1234-123456789012"

pytestmark = pytest.mark.skipif(not shutil.which("cryptsetup"), reason="no cryptsetup here")


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    with path.open("wb") as stream:
        stream.truncate(20 << 20)
    cost = ["--pbkdf", "argon2id", "--pbkdf-memory", "32", "--pbkdf-parallel", "1", "--pbkdf-force-iterations", "4"]
    form = ["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--uuid", UUID, *cost]
    subprocess.run([*form, "--key-file=-", path], input=PASSPHRASE.encode(), check=True)
    return path


@pytest.fixture
def context(disk, tmp_path, monkeypatch):
    asked = {"tpm2": {"pin": {"prompt": True}}, "secure_boot": "own"}
    answers = Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}, "encryption": asked})
    one = Luks(
        id="luks", device=str(disk), name="kos-root", uuid=UUID, memory_kib=32, iterations=4, threads=1,
        recovery_key=False,
    )  # fmt: skip
    monkeypatch.setattr(target, "inside", lambda _target, argv, stdin="": f"sealed {len(stdin)} {argv[0]}")
    return SimpleNamespace(
        answers=answers, plan=SimpleNamespace(actions=[one]), target=tmp_path / "target", log=lambda _text: None,
        secrets={"passphrase": PASSPHRASE, "tpm2_pin": PIN},
    )  # fmt: skip


@pytest.fixture
def root(context):
    return Root(str(context.target))


def test_the_key_that_is_left_opens_the_disk_and_so_does_the_passphrase(context, root, disk):
    assert not wishes.left(context, root)
    wishes.leave(context, root)
    assert wishes.left(context, root)
    with open(root.join(enrol.KEY), encoding="ascii") as stream:
        assert luks.opens(str(disk), stream.read())
    assert luks.opens(str(disk), PASSPHRASE)
    assert wishes.marked(luks.dump(str(disk))) == {"1"}


def test_a_second_run_adds_nothing(context, root, disk):
    wishes.leave(context, root)
    before = luks.dump(str(disk))
    wishes.leave(context, root)
    assert luks.dump(str(disk)) == before


def test_nothing_of_it_is_for_others_and_no_secret_is_plain(context, root):
    wishes.leave(context, root)
    folder = root.join(enrol.FOLDER)
    assert os.stat(folder).st_mode & 0o077 == 0
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        assert os.stat(path).st_mode & 0o077 == 0
        with open(path, encoding="ascii") as stream:
            content = stream.read()
        assert PIN not in content
        assert PASSPHRASE not in content


def test_without_a_tpm_in_the_answers_there_is_nothing(context, root, disk):
    plain = context.answers.model_copy(
        update={"encryption": context.answers.encryption.model_copy(update={"tpm2": None})}
    )
    context.answers = plain
    wishes.leave(context, root)
    assert wishes.left(context, root)
    assert not os.path.exists(root.join(enrol.FOLDER))
    assert set(luks.dump(str(disk))["keyslots"]) == {"0"}


def test_a_pin_that_was_not_given_is_asked_for(context, root):
    del context.secrets["tpm2_pin"]
    with pytest.raises(ApplyFailed, match="tpm2_pin was not given"):
        wishes.leave(context, root)


def test_the_node_takes_its_key_away_and_nothing_else(context, root, disk, monkeypatch, tmp_path):
    """The real header: the passphrase's slot is there afterwards, the marked one and its mark are not."""
    wishes.leave(context, root)
    with open(root.join(enrol.KEY), encoding="ascii") as stream:
        key = stream.read()
    by_uuid = "/dev/disk/by-uuid/"
    real = enrol.system.run

    def run(argv, stdin=None, check=True, timeout=None, environment=None):
        argv = [str(disk) if word.startswith(by_uuid) else word for word in argv]
        return real(argv, stdin, check, timeout, environment)

    monkeypatch.setattr(enrol.system, "run", run)
    enrol._forget(root, [UUID])
    header = luks.dump(str(disk))
    assert set(header["keyslots"]) == {"0"}
    assert header["tokens"] == {}
    assert luks.opens(str(disk), PASSPHRASE)
    assert not luks.opens(str(disk), key)
