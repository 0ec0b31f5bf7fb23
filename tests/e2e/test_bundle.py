# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that never had a network becomes healthy from a bundle, and takes nothing of one that was altered."""

from __future__ import annotations

import re
import tarfile

import pytest

# Everything that a refused deploy must leave as it was. What was proved of an image may stay in the node's store.
UNTOUCHED = (
    "{ dpkg-query -W; systemctl list-units --plain --no-legend 'kos-*'; ls /etc/kos /etc/systemd/system"
    " /etc/containers 2>/dev/null; } | sha256sum"
)


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    path = tmp_path_factory.mktemp("layer") / "site.yaml"
    path.write_text("services: {llm_backend: llama_cpp}\n")
    return ("--profile", "development", "--site", str(path))


@pytest.fixture(scope="module")
def bundle(lab, images, layer, tmp_path_factory):
    images.build("llama_cpp")
    path = tmp_path_factory.mktemp("bundle") / "development.kos"
    lab.kai("bundle", "build", *layer, "--arch", "amd64", "--output", str(path))
    return path


@pytest.fixture(scope="module")
def island(lab, bundle):
    """A node that boots into a lab with no way out."""
    lab.kai("lab", "up", "first")
    lab.kai("lab", "network", "cut")
    lab.kai("lab", "up", "island")
    lab.kai("lab", "down", "first")
    yield "island"
    lab.kai("lab", "network", "restore")
    lab.kai("lab", "down", "island")


def altered(bundle, folder, prefix):
    """A copy of the bundle with one bit flipped in the first file whose name begins so."""
    path = folder / "altered.kos"
    path.write_bytes(bundle.read_bytes())
    with tarfile.open(path) as tar:
        member = next(member for member in tar if member.name.startswith(prefix))
    with path.open("r+b") as stream:
        stream.seek(member.offset_data + member.size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 1]))
    return path


def test_a_bundle_is_proved_where_it_was_made(lab, bundle, tmp_path):
    assert "all as" in lab.kai("bundle", "verify", str(bundle)).stdout
    assert "localhost/kos/llama_cpp" in lab.kai("bundle", "inspect", str(bundle)).stdout
    done = lab.kai("bundle", "verify", str(altered(bundle, tmp_path, "apt/pool/")), check=False)
    assert done.returncode == 1
    assert "is not what its signed list says" in done.stderr


def test_without_a_bundle_the_same_deploy_fails_and_says_what_to_do(lab, island, layer):
    """The control: there is no way out."""
    assert lab.ssh(island, "ls /var/lib/apt/lists | grep -c Packages", check=False) == "0"
    done = lab.deploy(island, *layer, check=False)
    assert done.returncode == 5
    assert "deploy from a bundle" in " ".join(done.stderr.split())


@pytest.mark.parametrize("prefix", ["apt/pool/main/c/caddy", "blobs/sha256/"])
def test_an_altered_bundle_is_refused_before_anything_changed(lab, island, layer, bundle, tmp_path, prefix):
    # What the node has already is not taken from a bundle.
    lab.ssh(island, "rm -rf /var/lib/kos/images/blobs")
    before = lab.ssh(island, UNTOUCHED)
    done = lab.deploy(island, *layer, "--bundle", str(altered(bundle, tmp_path, prefix)), check=False)
    assert done.returncode == 5
    assert "is not what its signed list says" in " ".join(done.stderr.split())
    assert lab.ssh(island, UNTOUCHED) == before


def test_a_bundle_of_another_plan_is_refused(lab, island, bundle):
    # Without --site the layer of the inventory counts, which asks for more.
    done = lab.deploy(island, "--profile", "development", "--bundle", str(bundle), check=False)
    assert done.returncode == 5
    said = " ".join(done.stderr.split())
    assert re.search(r"the bundle lacks the services [a-z_, ]*nats", said)
    assert "kai bundle build --profile development" in said


def test_a_node_that_never_had_a_network_becomes_healthy_from_a_bundle(lab, island, layer, bundle):
    lab.deploy(island, *layer, "--bundle", str(bundle))
    rows = {row["name"]: row for row in lab.status(island)["services"]}
    assert rows["llama_cpp"]["substrate"] == "container"
    assert [name for name, row in rows.items() if not row["healthy"]] == []
    assert "nothing to do" in lab.deploy(island, *layer, "--bundle", str(bundle)).stderr
    # Packages are installed and their files gone; the image stays, for a rollback.
    assert lab.ssh(island, "ls -d /var/lib/kos/bundle 2>/dev/null; ls /var/cache/apt/archives/*.deb | wc -l") == "0"
    assert int(lab.ssh(island, "ls /var/lib/kos/images/blobs/sha256 | wc -l")) >= 3


def test_a_bundle_by_somebody_whom_the_node_does_not_trust_is_refused(lab, island, layer, bundle, tmp_path):
    theirs = tmp_path / "theirs.kos"
    stranger = {"XDG_CONFIG_HOME": str(tmp_path / "stranger")}
    lab.kai("bundle", "build", *layer, "--arch", "amd64", "--output", str(theirs), env=stranger)
    done = lab.deploy(island, *layer, "--bundle", str(theirs), check=False)
    assert done.returncode == 5
    assert "who is not trusted here" in " ".join(done.stderr.split())
