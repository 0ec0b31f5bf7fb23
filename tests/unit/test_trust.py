# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose generations a node accepts: real keys, real signatures, a plain directory as the node."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import trust
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError, Root
from ansible_collections.kind.kos.plugins.plugin_utils import signing

ID = "ab" * 32
OTHER_ID = "cd" * 32


def key(folder, name, kind="ed25519"):
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(path)], check=True)
    return signing.Signer(path, path.with_suffix(".pub").read_text().strip())


@pytest.fixture
def root(tmp_path):
    return Root(str(tmp_path / "node"))


@pytest.fixture
def office(tmp_path):
    return key(tmp_path, "office")


@pytest.fixture
def stranger(tmp_path):
    return key(tmp_path, "stranger")


def test_the_first_signer_is_enrolled_and_the_next_is_not(root, office, stranger):
    assert trust.verify(root, ID, office.sign(ID), office.public) == "office"
    assert trust.enrol(root, office.public) == "office"
    assert trust.enrol(root, stranger.public) is None
    with pytest.raises(
        trust.Untrusted, match=r"signed by SHA256:\S+, whom this node does not trust \(it trusts office"
    ):
        trust.verify(root, ID, stranger.sign(ID), stranger.public)


def test_a_second_key_is_accepted_once_added_and_refused_once_removed(root, office, stranger):
    trust.enrol(root, office.public)
    assert trust.add(root, "home", stranger.public) is True
    assert trust.add(root, "home", stranger.public) is False
    assert trust.verify(root, ID, stranger.sign(ID)) == "home"
    assert trust.remove(root, "home") is True
    assert trust.remove(root, "home") is False
    with pytest.raises(trust.Untrusted):
        trust.verify(root, ID, stranger.sign(ID))


@pytest.mark.parametrize("damage", ["missing", "other", "bit", "text", "namespace"])
def test_what_is_not_a_signature_of_this_generation_is_refused(root, office, damage):
    trust.enrol(root, office.public)
    good = office.sign(ID)
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(office.path)]
    elsewhere = subprocess.run(argv, input=trust.message(ID), capture_output=True, check=True).stdout.decode()
    lines = good.splitlines()
    # In the signature proper; the first lines hold the key.
    lines[-2] = lines[-2].translate(str.maketrans("ABCDEFGH", "BCDEFGHA"))
    bad = {
        "missing": "",
        "other": office.sign(OTHER_ID),
        "bit": "\n".join(lines) + "\n",
        "text": "-----BEGIN SSH SIGNATURE-----\n{{ lookup('pipe', 'id') }}\n-----END SSH SIGNATURE-----\n",
        "namespace": elsewhere,
    }
    assert trust.verify(root, ID, good) == "office"
    with pytest.raises(trust.Untrusted):
        trust.verify(root, ID, bad[damage])


def test_the_last_key_stays(root, office):
    trust.enrol(root, office.public)
    with pytest.raises(NodeError, match="the only key"):
        trust.remove(root, "office")


def test_a_name_or_a_key_is_taken_once(root, office, stranger):
    trust.enrol(root, office.public)
    with pytest.raises(NodeError, match="names another key here"):
        trust.add(root, "office", stranger.public)
    with pytest.raises(NodeError, match="already, as 'office'"):
        trust.add(root, "second", office.public)


@pytest.mark.parametrize("name", ["", "a b", "*", "a,b", "a\nb", "-x", "x" * 65, 'a"b'])
def test_a_name_cannot_smuggle_anything_into_the_list(root, office, name):
    with pytest.raises(NodeError, match="not a name"):
        trust.add(root, name, office.public)


@pytest.mark.parametrize(
    "line", ["", "ssh-rsa AAAAB3NzaC1yc2E", "ssh-ed25519", "ssh-ed25519 AAAA", 'command="x" ssh-ed25519 A']
)
def test_only_ed25519_keys_are_taken(root, line):
    with pytest.raises(NodeError):
        trust.add(root, "x", line)


def test_an_rsa_key_is_refused(root, tmp_path):
    with pytest.raises(NodeError, match="not an Ed25519"):
        trust.add(root, "x", key(tmp_path, "rsa", "rsa").public)


def test_the_controllers_key_is_made_once_and_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(signing.VARIABLE, raising=False)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _turn: signing.signer(), range(8)))
    assert len(set(made)) == 1
    assert made[0].path.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "kos").glob("[!.]*")) == ["signing_key", "signing_key.pub"]


def test_a_key_that_is_named_and_not_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv(signing.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(signing.SigningFailed, match="is not there"):
        signing.signer()


def test_signing_with_rsa_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv(signing.VARIABLE, str(key(tmp_path, "rsa", "rsa").path))
    with pytest.raises(signing.SigningFailed, match="not an Ed25519"):
        signing.signer()


@pytest.mark.parametrize(
    "damage", ["gone", "link", "empty", "expired", "other namespace", "comment", "unreadable text"]
)
def test_a_damaged_list_lets_nobody_in(root, office, stranger, damage):
    trust.enrol(root, office.public)
    path = Path(root.state("allowed_signers"))
    (path.parent / "generations/1").mkdir(parents=True)
    key = " ".join(stranger.public.split()[:2])
    lines = {
        "empty": "# nobody\n",
        "expired": f'evil valid-before="20200101" {key}\n',
        "other namespace": f'evil namespaces="file" {key}\n',
        "comment": path.read_text() + f'evil namespaces="kos-generation" {key} comment\n',
        "unreadable text": "\udcff\n",
    }
    if damage in ("gone", "link"):
        path.unlink()
    if damage == "link":
        path.symlink_to("/dev/null")
    if damage in lines:
        path.write_text(lines[damage], errors="surrogateescape")
    with pytest.raises(trust.Untrusted, match="allowed_signers"):
        trust.verify(root, ID, stranger.sign(ID), stranger.public)
    assert trust.enrol(root, stranger.public) is None
