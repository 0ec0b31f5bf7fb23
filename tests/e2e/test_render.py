# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `kai render` writes for Compose, really started by an ordinary user with podman-compose."""

from __future__ import annotations

import io
import json
import re
import tarfile

import pytest
from catalogues import catalogue, configs, machine, manifest
from labnodes import wait_for

from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.compose import compose
from ansible_collections.kind.kos.plugins.plugin_utils.workloads import workloads

SECRET = "known-to-this-test-only"
# As a user who logged in has it: rootless Podman wants a session.
SHELL = (
    "systemd-run --quiet --pipe --wait --collect --uid=who -p PAMName=login --setenv=HOME=/home/who "
    '--setenv=XDG_RUNTIME_DIR=/run/user/"$(id -u who)" --working-directory=/home/who/{folder} sh -c "{command}"'
)


class User:
    """An ordinary user of a machine that is no kOS node, with podman-compose and the session's images."""

    def __init__(self, lab, node):
        self._lab, self._node = lab, node

    def says(self, command, folder="", check=True):
        return self._lab.ssh(self._node, SHELL.format(command=command, folder=folder), check=check)

    def take(self, folder, files):
        """Put `files` (path -> bytes) into a folder of the user's home."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for path, content in files.items():
                info = tarfile.TarInfo(f"{folder}/{path}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        # The console carries text.
        lines = packed.getvalue().hex()
        unpack = "import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.read()))"
        command = f"python3 -c '{unpack}' | tar x --directory /home/who && chown -R who: /home/who"
        self._lab.kai("lab", "ssh", self._node, command, input=lines)

    def project(self, folder, files, references):
        """Start a project; its images come from the unit store, and no registry is asked."""
        # The lab's kernel enforces no limit of memory, and Podman refuses to set what is not enforced.
        text = re.sub(r" +mem_limit:.*\n", "", files.pop("compose.yaml"))
        told = {path: content.encode() for path, content in {**files, "compose.yaml": text, "models/.keep": ""}.items()}
        self.take(folder, told)
        for reference in references:
            self.says(f"skopeo copy -q oci:/home/who/store:{reference} containers-storage:{reference}")
        self.says("podman-compose up --detach", folder)

    def inspected(self, name):
        return json.loads(self.says(f"podman inspect {name}"))[0]


@pytest.fixture(scope="module")
def user(lab, images):
    images.build("valkey", "llama_cpp")
    lab.kai("lab", "up", "render")
    lab.ssh(
        "render",
        "apt-get -qq update && apt-get -qq install -y --no-install-recommends podman podman-compose skopeo passt "
        "uidmap aardvark-dns netavark crun >/dev/null 2>&1; useradd --create-home who && loginctl enable-linger who",
    )
    made = User(lab, "render")
    store = {
        str(path.relative_to(images.store)): path.read_bytes() for path in images.store.rglob("*") if path.is_file()
    }
    made.take("store", store)
    yield made
    lab.kai("lab", "down", "render")


@pytest.fixture(scope="module")
def running(lab, user, images, tmp_path_factory):
    """`personal_node`, as far as its images are built, from the command line."""
    folder = tmp_path_factory.mktemp("rendered")
    layer = folder / "site.yaml"
    layer.write_text("services: {cache: redis, vector_db: null, llm_backend: llama_cpp}\n")
    done = lab.kai(
        "render",
        "--profile",
        "personal_node",
        "--site",
        str(layer),
        "--substrate",
        "compose",
        "-o",
        str(folder / "out"),
    )
    assert "left out: nftables: it is part of a node" in done.stderr
    files = {str(path.relative_to(folder / "out")): path.read_text() for path in (folder / "out").rglob("*.*")
             if path.is_file()}  # fmt: skip
    secrets = {path.removesuffix(".template"): re.sub(r"@kos:secret:[a-z.]+@", SECRET, text)
               for path, text in files.items() if path.endswith(".template")}  # fmt: skip
    assert secrets and SECRET not in "".join(files.values())
    references = re.findall(r"image: (\S+)", files["compose.yaml"])
    user.project("node", {**files, **secrets}, references)
    return user


def test_the_language_model_server_answers_on_loopback_only(lab, running):
    ask = "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://127.0.0.1:8080/health\").status)'"
    wait_for(lambda: lab.ssh("render", ask, check=False) == "200", 60)
    listening = lab.ssh("render", "ss -Hltn | awk '{print $4}'").split()
    assert {"127.0.0.1:8080", "127.0.0.1:6379"} <= set(listening)
    assert not [place for place in listening if place.endswith((":8080", ":6379")) and "127.0.0.1" not in place]


def test_the_cache_takes_the_password_and_keeps_its_data(lab, running):
    client = f"podman exec -e REDISCLI_AUTH={SECRET} kos-personal-node_valkey_1 valkey-cli --user kos --no-auth-warning"
    assert running.says(f"{client} set kept yes") == "OK"
    assert "NOPERM" in running.says("podman exec kos-personal-node_valkey_1 valkey-cli get kept", check=False)
    running.says("podman-compose down", "node")
    running.says("podman-compose up --detach", "node")
    wait_for(lambda: running.says(f"{client} get kept", check=False) == "yes", 60)


@pytest.mark.parametrize("name", ["valkey", "llama-cpp"])
def test_each_container_is_locked_in(lab, running, name):
    found = running.inspected(f"kos-personal-node_{name}_1")
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert not found["EffectiveCaps"] and not found["BoundingCaps"]
    assert "no-new-privileges" in found["HostConfig"]["SecurityOpt"]
    # Neither has anything to ask of the other, and so no network in common.
    assert list(found["NetworkSettings"]["Networks"]) == [f"kos-personal-node_{name}-door"]


def test_a_peer_is_found_by_its_name_and_nobody_else_is(user, images, tmp_path):
    """The control: the same client reaches the store that its manifest requires."""
    digests = {"valkey": {"repository": "localhost/kos/valkey", "digests": {"amd64": images.digest("valkey")},
                          "licence": "MIT", "source": "x"}}  # fmt: skip
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "images.lock").write_text(json.dumps({"version": 1, "images": digests}))
    server = {"image": "valkey", "command": ["--protected-mode", "no", "--save", ""], "environment": {"LC_ALL": "C"}}
    waiting = {"image": "valkey", "command": ["-h", "@kos:peer:store@", "-r", "-1", "-i", "1", "ping"],
               "entrypoint": "/usr/bin/valkey-cli"}  # fmt: skip
    services = catalogue(
        tmp_path,
        manifest("podman", tier=0, provides=["container_runtime"]),
        manifest("store", substrates={"container": server}, ports=[{"name": "main", "port": 6379}]),
        manifest("other", substrates={"container": server}),
        manifest("asker", substrates={"container": waiting}, requires=["store"]),
    )
    tree = configs(tmp_path, {"services": {"monitoring": ["store", "other", "asker"]}})
    planned = assemble.plan(assemble.Request("test", configs=tree, services=services), machine(gpus=[]))
    found, _left = workloads(planned.plan, assemble.generation(planned).files, machine(gpus=[]))
    files = compose("pair", found)
    # The cache of the other project has that port of the machine.
    files["compose.yaml"] = files["compose.yaml"].replace("127.0.0.1:6379:6379", "127.0.0.1:16379:6379")
    user.project("pair", files, [found[0].image])
    wait_for(lambda: "PONG" in user.says("podman logs pair_asker_1", check=False), 60)
    away = user.says("podman exec pair_asker_1 valkey-cli -h other ping 2>&1", check=False)
    assert "Name or service not known" in away or "Could not connect" in away
