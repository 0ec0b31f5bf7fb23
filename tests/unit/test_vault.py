# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's secrets: which file, what it may hold, and that nothing of it is ever shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from catalogues import ROOT

from ansible_collections.kind.kos.cli.ansible import VaultPassword
from ansible_collections.kind.kos.plugins.plugin_utils import assemble, vaults
from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError

PASSWORD = "a password of a test"
CANARY = "{{ lookup('pipe', 'touch EXECUTED') }} canary-5f1e"
PLAIN = f'kos_secrets:\n  valkey.password: "{CANARY}"\n'


def encrypted(text, password=PASSWORD):
    return VaultLib([("default", VaultSecret(password.encode()))]).encrypt(text.encode())


def tree(folder, **files):
    (folder / "configs" / "secrets").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / "configs" / "secrets" / f"{name}.vault").write_bytes(content)
    return folder / "configs"


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - kind.kos.vault: {environment: production, configs: "{{ tree }}"}
      register: site_vault
      no_log: true
    - assert:
        that: "(site_vault.secrets['valkey.password'] | hash('sha256')) == wanted"
        quiet: true
"""


def read_with_ansible(folder, configs, *, password: VaultPassword, playbook=PLAYBOOK):
    """What `ansible-playbook -vvvv` says, its exit code and the events."""
    import hashlib

    (folder / "read.yml").write_text(playbook)
    wanted = hashlib.sha256(CANARY.encode()).hexdigest()
    with password.given() as (options, descriptors):
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", "node1,", "-vvvv", "read.yml", *options,
             "-e", f"tree={configs}", "-e", f"wanted={wanted}"],
            cwd=folder, capture_output=True, text=True, pass_fds=descriptors, stdin=subprocess.DEVNULL, check=False,
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "KOS_EVENTS": str(folder / "ev")},
        )  # fmt: skip
    events = (folder / "ev").read_text() if (folder / "ev").exists() else ""
    return done.stdout + done.stderr, done.returncode, events


@pytest.mark.parametrize("way", ["file", "typed"])
def test_the_password_opens_the_vault_and_nothing_shows_what_is_in_it(tmp_path, way):
    configs = tree(tmp_path, production=encrypted(PLAIN))
    (tmp_path / "password").write_text(PASSWORD)
    given = VaultPassword(file=tmp_path / "password") if way == "file" else VaultPassword(typed=PASSWORD)
    said, code, events = read_with_ansible(tmp_path, configs, password=given)
    assert code == 0, said
    assert "canary-5f1e" not in said + events
    assert PASSWORD not in said
    assert not (tmp_path / "EXECUTED").exists()
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"canary-5f1e" in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize(
    ("password", "says"),
    [
        (VaultPassword(), "is encrypted, and no password was given (give its password with --vault-password-file"),
        (VaultPassword(typed="another"), "cannot be opened with the password that was given"),
    ],
)
def test_a_missing_or_wrong_password_is_one_sentence(tmp_path, password, says):
    configs = tree(tmp_path, production=encrypted(PLAIN))
    said, code, events = read_with_ansible(tmp_path, configs, password=password)
    assert code != 0
    (row,) = [json.loads(line) for line in events.splitlines()]
    (fault,) = row["faults"]
    assert fault["file"].endswith("production.vault")
    assert says in f"{fault['message']} ({fault['fix']})"
    assert "canary-5f1e" not in said


def test_a_task_that_would_show_the_secrets_is_refused(tmp_path):
    configs = tree(tmp_path, production=encrypted(PLAIN))
    shown = PLAYBOOK.replace("      no_log: true\n", "")
    said, code, _events = read_with_ansible(tmp_path, configs, password=VaultPassword(typed=PASSWORD), playbook=shown)
    assert code != 0
    assert "give it no_log: true" in said
    assert "canary-5f1e" not in said


def test_the_environment_names_the_file(tmp_path):
    configs = tree(tmp_path, production=encrypted(PLAIN), development=encrypted(PLAIN))
    assert vaults.vault_of(configs, "production").name == "production.vault"
    assert vaults.vault_of(configs, "local").name == "development.vault"
    assert vaults.vault_of(configs, "staging") is None
    assert vaults.vault_of(configs, None) is None
    tree(tmp_path, local=encrypted(PLAIN))
    with pytest.raises(ConfigurationError, match=r"local.vault and development.vault are both"):
        vaults.vault_of(configs, "local")


def test_a_vault_that_is_not_encrypted_stops_a_plan(tmp_path):
    configs = tree(tmp_path, production=PLAIN.encode())
    for name in ("profiles", "environments", "requirements.yaml"):
        (configs / name).symlink_to(ROOT / "configs" / name)
    request = assemble.Request("personal_node", "production", configs=configs)
    with pytest.raises(ConfigurationError, match=r"production.vault:1: is not encrypted \(ansible-vault encrypt"):
        assemble.plan(request, assemble.facts_from({"os": {"id": "debian", "version": "13"}, "architecture": "amd64",
                                                    "cpu": 64, "memory_mb": 99999, "disk_gb": 999}, "x"))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kos_secrets: {valky.password: canary}", "kos_secrets.valky.password: no service has a secret of this name "
         "(did you mean 'valkey.password'?)"),
        ("kos_secrets: {valkey.password: 12345}", "must be text (put it in quotes)"),
        ("kos_secrets: {valkey.password: \"a\\nb\"}", "must be one line of plain text"),
        ("kos_secrets: {valkey.password: \"@kos:secret:nats.password@\"}", "must be one line of plain text"),
        ("kos_secrets: [canary]", "must hold kos_secrets and nothing else"),
        ("kos_secrets: {}\nansible_host: canary", "must hold kos_secrets and nothing else"),
        ("canary: [", "its decrypted text is not valid YAML"),
        ("", "its decrypted text is not valid YAML"),
    ],
)  # fmt: skip
def test_what_a_vault_may_hold(tmp_path, text, says):
    with pytest.raises(ConfigurationError) as caught:
        vaults.secrets_in(text, tmp_path / "production.vault", load_catalogue(ROOT / "services"))
    assert says in str(caught.value)
    assert "canary" not in str(caught.value).replace("valkey", "")
    assert "12345" not in str(caught.value)
