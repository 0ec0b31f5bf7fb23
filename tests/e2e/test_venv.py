# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chroma from hash-locked wheels on a real node: it answers, it is shut in, and altered wheels change nothing."""

from __future__ import annotations

import shutil

import pytest
import yaml
from labnodes import wait_for

from ansible_collections.kind.kos.plugins.plugin_utils import unit_store, venvs

# 106 MB of wheels to fetch and 470 MB to install: the unit tests install a small one with the same code.
pytestmark = pytest.mark.long

LAYER = "services: {vector_db: chroma, llm_backend: null}\n"
VENVS = "/var/lib/kos-venvs"
# Add two vectors to a collection and ask which is nearest to a third; on a second run only ask.
ASK = """
import json, sys, urllib.request
base = "http://127.0.0.1:8000/api/v2/tenants/default_tenant/databases/default_database/collections"
def post(path, data):
    body = json.dumps(data).encode()
    request = urllib.request.Request(base + path, body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=30) )
made = post("", {"name": "kept", "get_or_create": True})
if sys.argv[1] == "add":
    rows = {"ids": ["near", "far"], "embeddings": [[1, 0, 0], [0, 0, 9]], "documents": ["n", "f"]}
    post("/" + made["id"] + "/add", rows)
found = post("/" + made["id"] + "/query", {"query_embeddings": [[1, 0.1, 0]], "n_results": 1})
print(found["ids"][0][0])
"""


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    path = tmp_path_factory.mktemp("layer") / "site.yaml"
    path.write_text(LAYER)
    return ("--profile", "development", "--site", str(path))


@pytest.fixture(scope="module")
def wheels(lab, images):
    """The wheels of Chroma, in the store of the session; their digest."""
    lab.kai("wheels", "fetch", "chroma")
    return yaml.safe_load(images.lock.read_text())["images"]["chroma_wheels"]["digests"]["amd64"]


@pytest.fixture(scope="module")
def running(lab, node, layer, wheels):
    lab.deploy(node, *layer)
    return node


def asked(lab, node, verb):
    return lab.kai("lab", "ssh", node, f"python3 - {verb}", input=ASK).stdout.strip()


@pytest.fixture(scope="module")
def refused(lab, node, layer, wheels, images):
    """What a deploy says of a wheel that was altered in the store, on a node that has nothing yet."""
    wheel = venvs.wheels_of(unit_store.read_blob(images.store, wheels))[0]
    path = unit_store.blob_path(images.store, wheel.digest)
    shutil.copy(path, f"{path}.whole")
    with path.open("ab") as stream:
        stream.write(b"altered")
    done = lab.deploy(node, *layer, check=False)
    path.unlink()
    path.with_name(f"{path.name}.whole").rename(path)
    before = lab.ssh(
        node, f"ls -d {VENVS} /etc/systemd/system/kos-chroma.service 2>/dev/null; id -u kos-chroma", check=False
    )
    return done, before


def test_an_altered_wheel_is_refused_before_anything_changed(refused):
    done, there = refused
    assert done.returncode == 5, done.stdout
    assert "it claims to be. Nothing was changed." in " ".join((done.stdout + done.stderr).split())
    assert there == ""


def test_it_is_healthy_unprivileged_and_pinned(lab, refused, running, wheels):
    row = next(row for row in lab.status(running)["services"] if row["name"] == "chroma")
    assert row["healthy"] and row["substrate"] == "venv"
    processes = lab.ssh(running, "ps -o user=,args= -C chroma").splitlines()
    assert processes and all(line.startswith("kos-chr") for line in processes)
    assert f"{VENVS}/chroma/{wheels[7:23]}/bin/" in processes[0]
    assert lab.ssh(running, f"find {VENVS} ! -user root -o -perm /022 ! -type l | head -n1") == ""
    listening = lab.ssh(running, "ss -Hltn 'sport = :8000' | awk '{print $4}'").split()
    assert listening == ["127.0.0.1:8000"]


def test_it_finds_what_was_added(lab, running):
    assert asked(lab, running, "add") == "near"


def test_a_second_deploy_finds_nothing_to_do(lab, running, layer):
    assert "nothing to do" in lab.deploy(running, *layer).stderr


def test_data_outlives_a_restart_and_the_environment_goes_with_the_service(lab, running, layer, tmp_path):
    lab.ssh(running, "systemctl restart kos-chroma")
    wait_for(lambda: lab.healthy(running), 60)
    assert asked(lab, running, "ask") == "near"
    (tmp_path / "less.yaml").write_text("services: {vector_db: null, llm_backend: null}\n")
    lab.deploy(running, "--profile", "development", "--site", str(tmp_path / "less.yaml"))
    assert "chroma" not in {row["name"] for row in lab.status(running)["services"]}
    # The generation of before may be gone back to, without a network.
    lab.kai("rollback", "-i", "inventories/lab", "--limit", running)
    wait_for(lambda: lab.healthy(running), 60)
    assert asked(lab, running, "ask") == "near"
