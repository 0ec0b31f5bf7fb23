# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cloud's machine is told: the same for the same, no value a command, no secret, one clear error where wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import cloudinits
import pytest
import yaml
from catalogues import ROOT
from cloudinits import COLLECTION, KEY, MACHINE, NODE
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kind.kos.cli.main import main
from ansible_collections.kind.kos.plugins.module_utils.node import trust
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.plugin_utils import cloud_init, cloud_scripts, own_node
from ansible_collections.kind.kos.plugins.plugin_utils.cloud_init import Layer, Machine, Network, Node

URL = "https://kos.example/kind-kos-0.1.0.tar.gz"
SCRIPTS = {"pull": cloud_scripts.PULL, "seeded": cloud_scripts.SEEDED, "push": f"#!/bin/sh\n{cloud_scripts.PUSH}"}
# What a shell, a template, YAML or a second line would make a command of.
HOSTILE = st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.sampled_from(
    [
        "{{ lookup('pipe', 'touch EXECUTED') }}",
        "$(touch EXECUTED) `touch EXECUTED`",
        "'; touch EXECUTED; '",
        '"\n  - touch EXECUTED\n#',
        "## template: jinja",
        "---\n...\n",
        "!!python/object/apply:os.system [touch EXECUTED]",
    ]
)


@pytest.fixture
def kai(tmp_path, monkeypatch, capsys):
    """`kai cloud-init` with a signing key of the test's own; its output, or what it says of an error."""
    (tmp_path / "me.pub").write_text(f"{KEY}\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("KOS_APT_MIRROR", "KOS_APT_SECURITY_MIRROR", "KOS_INVENTORY", "KOS_CONFIGS", "KOS_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["kai", "cloud-init", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.out + said.err
        return said.out if code == 0 else " ".join(said.err.replace("│", " ").split())

    return run


def rendered(kai, tmp_path, *argv, **more):
    return kai("render", "--ssh-key", tmp_path / "me.pub", *argv, **more)


def files(documents):
    return {row["path"]: row for row in yaml.safe_load(documents["user-data"])["write_files"]}


# --- the documents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", cloud_init.SHAPES)
def test_the_documents_are_the_reviewed_ones(shape):
    assert cloudinits.golden(shape) == (cloudinits.FOLDER / f"{shape}.txt").read_text(), "make golden; then review it"


def test_every_shape_is_reviewed():
    assert {path.stem for path in cloudinits.FOLDER.iterdir()} == set(cloud_init.SHAPES)


@pytest.mark.parametrize("shape", cloud_init.SHAPES)
def test_every_document_is_there_and_begins_as_it_must(shape):
    found = cloudinits.documents()[shape]
    assert set(found) == {"user-data", "meta-data", "vendor-data", *(["network-config"] if shape == "push" else [])}
    for name in ("user-data", "vendor-data"):
        assert found[name].startswith("#cloud-config\n")
    data = yaml.safe_load(found["user-data"])
    (person,) = data["users"]
    assert person["ssh_authorized_keys"] == [KEY] and person["lock_passwd"]
    assert not data["ssh_pwauth"] and data["disable_root"]


def test_other_user_data_are_another_instance():
    one, two = (cloud_init.seeded(replace(MACHINE, hostname=name), NODE)["meta-data"] for name in ("attic", "cellar"))
    assert yaml.safe_load(one)["instance-id"] != yaml.safe_load(two)["instance-id"]
    assert cloud_init.seeded(MACHINE, NODE)["meta-data"] == one


def test_push_prepares_and_does_nothing_else():
    data = yaml.safe_load(cloud_init.push(MACHINE)["user-data"])
    assert set(data) == {"hostname", "ssh_pwauth", "disable_root", "users", "runcmd"}
    assert data["runcmd"] == [["sh", "-c", cloud_scripts.PUSH]]


def test_the_list_of_signers_that_push_writes_is_one_that_a_node_reads(tmp_path):
    documents = cloud_init.push(MACHINE, f'{KEY}\nevil namespaces="*" {KEY}')
    (row,) = yaml.safe_load(documents["user-data"])["write_files"]
    path = tmp_path / row["path"].lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text(row["content"])
    assert trust.signers(Root(str(tmp_path))) == {"controller": " ".join(KEY.split()[:2])}


def test_what_holds_a_layer_is_for_root_alone():
    node = replace(NODE, site=Layer("a: 1\n", ".yaml"), user=Layer("b = 2\n", ".toml"))
    found = files(cloud_init.pull(MACHINE, node, COLLECTION))
    assert {path for path, row in found.items() if row["permissions"] not in ("0600", "0700")} == {cloud_scripts.KAI}
    said = yaml.safe_load(found[own_node.INVENTORY]["content"])["kos"]["hosts"]["attic"]
    assert found[said["kos_site_layer"]]["content"] == "a: 1\n"
    assert found[said["kos_user_layer"]]["content"] == "b = 2\n"


@pytest.mark.parametrize("address, gateway", [("192.0.2.7/24", "192.0.2.1"), ("2001:db8::7/64", "2001:db8::1")])
def test_an_address_that_was_given_is_the_only_one(address, gateway):
    documents = cloud_init.push(replace(MACHINE, network=Network("enp1s0", address, gateway, (gateway,))))
    card = yaml.safe_load(documents["network-config"])["ethernets"]["enp1s0"]
    assert card["addresses"] == [address] and not card["dhcp4"] and not card["dhcp6"]
    assert card["routes"][0]["via"] == gateway and card["nameservers"] == {"addresses": [gateway]}


def test_a_card_may_be_known_by_its_mac():
    documents = cloud_init.push(replace(MACHINE, network=Network("52:54:00:AB:cd:ef")))
    (card,) = yaml.safe_load(documents["network-config"])["ethernets"].values()
    assert card == {"match": {"macaddress": "52:54:00:ab:cd:ef"}, "dhcp4": True, "dhcp6": True}


# --- values are data -------------------------------------------------------------------------------------------------


@given(comment=HOSTILE, layer=HOSTILE, profile=HOSTILE, environment=HOSTILE, url=HOSTILE)
def test_a_value_is_in_no_script_and_comes_out_as_it_went_in(comment, layer, profile, environment, url):
    machine = Machine((comment,), "attic", mirror=url)
    documents = cloud_init.pull(
        machine, Node(profile, environment, Layer(layer, ".yaml")), replace(COLLECTION, url=url)
    )
    data = yaml.safe_load(documents["user-data"])
    found = {row["path"]: row["content"] for row in data["write_files"]}
    assert documents["user-data"].startswith("#cloud-config\n") and "runcmd" not in data
    assert found[cloud_scripts.PATH] == cloud_scripts.PULL and found[cloud_scripts.KAI] == cloud_scripts.LAUNCHER
    assert found[f"{cloud_scripts.DOOR}/collection"] == f"{url}\n"
    assert found[f"{own_node.LAYERS}/site.yaml"] == layer
    assert data["users"][0]["ssh_authorized_keys"] == [comment]
    host = yaml.safe_load(found[own_node.INVENTORY])["kos"]["hosts"]["attic"]
    assert host["kos_profile"] == profile and host.get("kos_environment", "") == environment
    for name in ("meta-data", "vendor-data"):
        assert isinstance(yaml.safe_load(documents[name]), dict)


@given(HOSTILE)
def test_a_name_that_is_none_is_refused(name):
    if not re.fullmatch(r"[A-Za-z0-9-]+", name, re.ASCII):
        assert "is no name for a machine" in cloud_init.fault(Machine((KEY,), name))
    if not re.fullmatch(r"[a-z0-9_-]+", name, re.ASCII):
        assert "is no name for who logs in" in cloud_init.fault(Machine((KEY,), "attic", name))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_one_and_a_constant(name):
    done = subprocess.run(["sh", "-n", "-c", SCRIPTS[name]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "{{" not in SCRIPTS[name] and "eval" not in SCRIPTS[name]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed: apt install shellcheck")
@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name):
    done = subprocess.run(["shellcheck", "-"], input=SCRIPTS[name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# --- the script of a machine that pulls itself, run with programs that stand in --------------------------------------


@pytest.fixture
def door(tmp_path):
    """The script, its paths moved below a folder, and programs of its world that write down how they were called."""
    (tmp_path / "bin").mkdir()
    for name in ("apt-get", "ansible-galaxy", "kai"):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n[ ! -e {tmp_path}/{name}-fails ]\n')
        program.chmod(0o755)
    helper = tmp_path / "bin/apt-helper"
    helper.write_text('#!/bin/sh\nshift 4\ncp "$1" "$2"\n')
    helper.chmod(0o755)
    moved = cloud_scripts.PULL
    for path in (
        cloud_scripts.DOOR,
        "/var/lib/cloud/instance",
        "/run/kos-door",
        "/run/credentials",
        "/usr/share/ansible",
    ):
        moved = moved.replace(path, f"{tmp_path}{path}")
    moved = moved.replace("/usr/lib/apt/apt-helper", str(helper)).replace("PATH=", f"PATH={tmp_path}/bin:")
    for folder in (cloud_scripts.DOOR, "/var/lib/cloud/instance", "/run", "/run/credentials/@system"):
        (tmp_path / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    public = (tmp_path / "key.pub").read_text()
    (tmp_path / "kind-kos.tar.gz").write_bytes(b"the collection")
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", cloud_init.NAMESPACE, "-f", tmp_path / "key"]
    subprocess.run([*argv, tmp_path / "kind-kos.tar.gz"], check=True, capture_output=True)
    documents = cloud_init.pull(MACHINE, NODE, replace(COLLECTION, url="https://x/y", signer=public, sha256=""))
    for path, row in files(documents).items():
        if path.startswith(cloud_scripts.DOOR):
            (tmp_path / path.lstrip("/")).write_text(row["content"])
    (tmp_path / "etc/kos/door/collection").write_text(f"{tmp_path}/kind-kos.tar.gz\n")

    def run():
        done = subprocess.run(["sh", "-c", moved], capture_output=True, text=True, check=False)
        calls = (tmp_path / "calls").read_text() if (tmp_path / "calls").exists() else ""
        (tmp_path / "calls").unlink(missing_ok=True)
        return done.returncode, done.stdout + done.stderr, calls

    return tmp_path, run


def test_a_signed_collection_is_installed_and_deployed_once(door):
    _folder, run = door
    code, said, calls = run()
    assert code == 0, said
    order = [calls.index(word) for word in ("ansible-galaxy collection install", "kai trust add", "kai deploy")]
    assert order == sorted(order) and "a node" in said
    assert run() == (0, "", "")


def test_one_that_was_altered_is_neither_unpacked_nor_run(door):
    folder, run = door
    (folder / "kind-kos.tar.gz").write_bytes(b"another collection")
    code, said, calls = run()
    assert code == 1 and "is not signed by the key" in said
    assert "ansible-galaxy" not in calls and "kai" not in calls


def test_a_signature_for_something_else_is_none(door):
    folder, run = door
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", trust.NAMESPACE, "-f", folder / "key"]
    (folder / "kind-kos.tar.gz.sig").unlink()
    subprocess.run([*argv, folder / "kind-kos.tar.gz"], check=True, capture_output=True)
    assert run()[0] == 1


def test_another_version_than_the_one_that_was_asked_for_is_not_used(door):
    folder, run = door
    (folder / "etc/kos/door/sha256").write_text(64 * "0" + "\n")
    code, said, calls = run()
    assert code == 1 and "is another version" in said and "ansible-galaxy" not in calls


def test_a_deploy_that_fails_is_tried_again_at_the_next_start(door):
    folder, run = door
    (folder / "kai-fails").touch()
    code, _said, _calls = run()
    assert code == 1
    (folder / "kai-fails").unlink()
    code, _said, calls = run()
    assert code == 0 and "kai deploy" in calls


def test_a_vault_comes_by_a_credential_and_its_password_is_in_no_argument(door):
    folder, run = door
    given = folder / "run/credentials/@system"
    (given / cloud_scripts.VAULT).write_text("$ANSIBLE_VAULT;1.1\n")
    code, said, _calls = run()
    assert code == 1 and "without its password" in said
    (given / cloud_scripts.PASSWORD).write_text("the secret itself")
    code, said, calls = run()
    assert code == 0, said
    assert (
        f"--vault-password-file {given}/{cloud_scripts.PASSWORD}" in calls and "the secret itself" not in calls + said
    )
    (vault,) = folder.rglob("production.vault")
    assert vault.parent.name == "secrets" and vault.stat().st_mode & 0o077 == 0
    (folder / "etc/kos/door/environment").write_text("")
    (folder / "var/lib/cloud/instance/kos-node").unlink()
    assert "no environment" in run()[1]


# --- the command -----------------------------------------------------------------------------------------------------


def test_user_data_come_on_standard_output(kai, tmp_path):
    said = rendered(kai, tmp_path, "--profile", "personal_node", "--collection", URL, "--hostname", "attic")
    assert said.startswith("#cloud-config\n") and yaml.safe_load(said)["hostname"] == "attic"


def test_all_files_come_into_a_folder_and_are_for_their_owner(kai, tmp_path):
    rendered(kai, tmp_path, "--shape", "push", "--output", tmp_path / "seed")
    found = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "seed").iterdir()}
    assert found == dict.fromkeys(("user-data", "meta-data", "vendor-data"), 0o600)
    rendered(kai, tmp_path, "--shape", "push", "--interface", "enp1s0", "--output", tmp_path / "seed")
    assert {path.name for path in (tmp_path / "seed").iterdir()} == set(cloud_init.NAMES)


def inventory(tmp_path, **variables):
    hosts = {"attic.example.org": {"ansible_connection": "local", **variables}}
    path = tmp_path / "hosts.yml"
    path.write_text(json.dumps({"kos": {"hosts": hosts}}))
    return path


def test_an_inventory_says_what_the_machine_is_and_none_of_its_secrets(kai, tmp_path):
    layer = tmp_path / "mine.yaml"
    layer.write_text("logging: {level: info}\n")
    secret = {"ansible_become_password": "s3cret-one", "kos_secrets": {"valkey.password": "s3cret-two"}}
    path = inventory(
        tmp_path, kos_profile="personal_node", kos_environment="production", kos_site_layer=str(layer),
        kos_accept_shortfall=["cpu"], ansible_user="anna", **secret,
    )  # fmt: skip
    said = rendered(kai, tmp_path, "-i", path, "--collection", URL)
    data = yaml.safe_load(said)
    assert data["hostname"] == "attic" and data["users"][0]["name"] == "anna" and "s3cret" not in said
    found = {row["path"]: row["content"] for row in data["write_files"]}
    host = yaml.safe_load(found[own_node.INVENTORY])["kos"]["hosts"]["attic"]
    assert host["kos_profile"] == "personal_node" and host["kos_accept_shortfall"] == ["cpu"]
    assert found[host["kos_site_layer"]] == layer.read_text()


@pytest.mark.parametrize(
    "argv, code, says",
    [
        (["--profile", "personal_nod", "--collection", URL], 3, "did you mean 'personal_node'?"),
        (["--profile", "{{ 7*7 }}", "--collection", URL], 3, "{{ 7*7 }}"),
        (["--profile", "personal_node", "--collection", URL, "--env", "nowhere"], 3, "nowhere"),
        (["--profile", "personal_node"], 2, "name where the collection lies"),
        (["--collection", URL], 2, "name one: --profile personal_node"),
        (["--profile", "personal_node", "--collection", "ftp://x/y"], 3, "is no address of a file"),
        (["--profile", "personal_node", "--collection", "https://me:secret@x/y"], 3, "is no address of a file"),
        (["--profile", "personal_node", "--collection", f"{URL} x"], 3, "is no address of a file"),
        (["--profile", "personal_node", "--collection", URL, "--sha256", "abc"], 3, "that is no SHA-256"),
        (["--shape", "push", "--hostname", "a'b"], 3, "is no name for a machine"),
        (["--shape", "push", "--login", "root"], 3, "is no name for who logs in"),
        (["--shape", "push", "--collection", URL], 2, "is for --shape pull"),
        (["--shape", "push", "--interface", "enp1s0", "--address", "192.0.2.300/24"], 3, "is no address"),
        (["--shape", "push", "--address", "192.0.2.7/24"], 2, "name it with --interface"),
        (["--shape", "push", "--interface", "e*"], 3, "is no card"),
        (["--shape", "push", "--apt-mirror", "http://x/\nTrusted: yes"], 3, "is no address of a mirror"),
        (["--shape", "push", "--gateway", "192.0.2.1"], 2, "go with --address"),
        (["--shape", "push", "--interface", "e0", "--address", "::7/64", "--nameserver", "x y"], 3, "is no address"),
        (["--shape", "seeded", "--profile", "personal_node", "--site", "lab"], 2, "has no layers of a site"),
        (["--shape", "seeded", "--profile", "personal_node", "--accept-shortfall", "luck"], 2, "known are"),
    ],
)
def test_what_is_wrong_is_one_clear_error(kai, tmp_path, argv, code, says):
    said = rendered(kai, tmp_path, *argv, code=code)
    assert says in said


def test_a_machine_that_nobody_could_log_in_to_is_refused(kai, tmp_path):
    assert "nobody could log in" in kai("render", "--shape", "push", code=3)
    private = tmp_path / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n")
    said = kai("render", "--shape", "push", "--ssh-key", private, code=3)
    assert "not the public key" in said and "c2VjcmV0" not in said


@pytest.mark.parametrize(
    "variables, says",
    [
        ({"kos_profile": "{{ inventory_hostname }}"}, "is a template, which only Ansible reads"),
        ({"kos_profile": "personal_node", "kos_site_layer": 7}, "must be text"),
        ({"kos_profile": "personal_node", "ansible_user": "x; touch EXECUTED"}, "is no name for who logs in"),
    ],
)
def test_what_an_inventory_says_is_data(kai, tmp_path, variables, says):
    path = inventory(tmp_path, **variables)
    assert says in rendered(kai, tmp_path, "-i", path, "--collection", URL, code=3)


def test_an_inventory_of_several_wants_one_named(kai, tmp_path):
    path = tmp_path / "hosts.yml"
    path.write_text(json.dumps({"kos": {"hosts": {"one": {}, "two": {}}}}))
    argv = ["-i", path, "--shape", "push"]
    assert "has 2 hosts" in rendered(kai, tmp_path, *argv, code=3)
    assert yaml.safe_load(rendered(kai, tmp_path, *argv, "--limit", "two"))["hostname"] == "two"


def test_what_is_published_is_signed_and_has_no_secrets_in_it(kai, tmp_path):
    packed, signature = map(Path, kai("publish", "--to", tmp_path / "public").split())
    key = (tmp_path / "config/kos/signing_key.pub").read_text()
    known = {"publisher": trust.parse_key(key)[0]}
    assert trust.signer_of(packed.read_bytes(), signature.read_text(), cloud_init.NAMESPACE, known) == "publisher"
    listed = subprocess.run(["tar", "-tzf", packed], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"cli/main.py", "playbooks/site.yml", "configs/profiles/personal_node.yaml"} <= set(listed)
    assert not [name for name in listed if name.startswith("configs/secrets") or "__pycache__" in name]
    # Nor what else somebody keeps in a checkout, such as their inventories.
    assert not {"inventories", "tests", "docs", "public"} & {name.partition("/")[0] for name in listed}
    assert {path.name for path in packed.parent.iterdir()} == {packed.name, signature.name}


def test_the_packages_of_a_machine_that_pulls_itself_have_all_that_kai_imports():
    """Debian's names of what pyproject.toml asks for, but for what only media and the installer use."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {re.match(r"[a-z0-9-]+", line)[0] for line in asked}
    elsewhere = {"cyclonedx-python-lib", "passlib", "polib", "segno", "textual"}
    # ansible-core brings jinja2 and pyyaml, typer brings rich.
    brought = {"jinja2", "pyyaml", "rich"}
    given = {name.removeprefix("python3-").replace(".", "-") for name in cloud_scripts.PACKAGES} - {"openssh-client"}
    assert wanted - elsewhere - brought == given
