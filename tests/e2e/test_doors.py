# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two doors lead to the same node, as `kai compare` finds from each one's own disk; and what differs is named.

One is deployed by this machine, the other by itself from the collection, as a cloud's machine is. They have other
names, addresses and memory.
"""

from __future__ import annotations

import json

import accepting
import pytest
from labnodes import INVENTORY

from ansible_collections.kind.kos.plugins.plugin_utils import cloud_scripts

pytestmark = pytest.mark.long

ONE, OTHER = "ordinary", "alone"
PROFILE = "development"
LAYER = "services: {vector_db: null}\n"
CHANGED = LAYER + "networking: {ports: {frontend: 8443}}\n"
SHORTFALL = ("--accept-shortfall", "cpu,memory,disk")
MEMORY_MB = 6144
# A lab node sees this machine's memory: another file in the kernel's place, as lxcfs does it.
LESS_MEMORY = (
    f"sed 's/^MemTotal: .*/MemTotal: {MEMORY_MB << 10} kB/' /proc/meminfo > /run/meminfo"
    " && mount --bind /run/meminfo /proc/meminfo"
)
COLLECTIONS = "/usr/share/ansible/collections"
ITSELF = f"""
set -e
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y install --no-install-recommends {" ".join(cloud_scripts.PACKAGES)} >/dev/null 2>&1
ansible-galaxy collection install --offline --no-deps --collections-path {COLLECTIONS} /root/kind-kos.tar.gz
chmod 0755 {cloud_scripts.KAI}
kai deploy --profile {PROFILE} --site /root/site.yaml {" ".join(SHORTFALL)}
"""


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    path = tmp_path_factory.mktemp("layer") / "site.yaml"
    path.write_text(LAYER)
    return path


@pytest.fixture(scope="module")
def ordinary(lab, layer):
    """A node that this machine deploys."""
    lab.kai("lab", "up", ONE)
    lab.deploy(ONE, "--profile", PROFILE, "--site", str(layer))
    yield ONE
    lab.kai("lab", "down", ONE)


def put(lab, node, path, source):
    with source.open("rb") as stream:
        lab.kai("lab", "ssh", node, f"cat > {path}", stdin=stream)


@pytest.fixture(scope="module")
def alone(lab, layer, tmp_path_factory):
    """A node that deploys itself, and signs for itself."""
    folder = tmp_path_factory.mktemp("alone")
    lab.run("ansible-galaxy", "collection", "build", "--output-path", str(folder))
    (folder / "kai").write_text(cloud_scripts.LAUNCHER)
    lab.kai("lab", "up", OTHER)
    lab.ssh(OTHER, LESS_MEMORY)
    put(lab, OTHER, "/root/kind-kos.tar.gz", next(folder.glob("*.tar.gz")))
    put(lab, OTHER, cloud_scripts.KAI, folder / "kai")
    put(lab, OTHER, "/root/site.yaml", layer)
    lab.ssh(OTHER, ITSELF)
    yield OTHER
    lab.kai("lab", "down", OTHER)


@pytest.fixture(scope="module")
def compare(lab, ordinary, alone):
    """What `kai compare` says of the two, and how it ended."""

    def asked(*nodes):
        done = lab.kai("compare", *(nodes or (ordinary, alone)), "-i", INVENTORY, "--json", check=False)
        (row,) = json.loads(done.stdout)
        assert done.returncode == (0 if row["equal"] else 1), done.stderr
        return row

    return asked


def named(row, part="differences"):
    return {(entry["kind"], entry["name"]) for entry in row[part]}


def test_both_doors_lead_to_the_same_node(lab, compare):
    row = compare()
    assert row["equal"], row["differences"]
    assert len(set(row["generations"].values())) == 1 and all(row["generations"].values())
    assert row["packages"]["named"] > 5
    machines = {entry["name"]: (entry["one"], entry["other"]) for entry in row["machine"]}
    assert machines["name"] == (ONE, OTHER)
    assert "addresses" in machines and machines["memory_mb"][1] == str(MEMORY_MB)
    signers = {node: lab.status(node)["generation"]["signed_by"] for node in (ONE, OTHER)}
    assert len(set(signers.values())) == 2, signers
    accepting.keep(INVENTORY, ONE, "playbook", "nspawn", lab.environment)


def test_what_only_one_of_them_has_installed_is_told_and_not_judged(compare):
    """The one that deploys itself has Ansible, which the other is deployed by from afar."""
    row = compare()
    assert ("package", "ansible-core") in named(row, "base") and row["equal"]


def test_a_node_that_is_gone_is_compared_by_what_was_kept_of_it(lab, compare, tmp_path):
    lab.kai("compare", ONE, "-i", INVENTORY, "--save", str(tmp_path))
    assert compare(str(tmp_path / f"{ONE}.json"), OTHER)["equal"]


def test_a_file_that_somebody_altered_is_named_with_its_node(lab, compare):
    path = lab.ssh(OTHER, "ls /etc/kos/caddy/* | head -n 1")
    lab.ssh(OTHER, f"cp -a {path} /root/kept && echo >> {path}")
    found = compare()["differences"]
    # The daemon has not read it either.
    assert {(entry["kind"], entry["one"]) for entry in found} == {("drift", "-")}
    assert [entry for entry in found if path in entry["other"]], found
    lab.ssh(OTHER, f"cp -a /root/kept {path}")
    assert compare()["equal"]


def test_a_stored_generation_that_somebody_altered_has_another_name(lab, compare):
    tree = "/var/lib/kos/current/tree"
    path = lab.ssh(OTHER, f"find {tree}/etc/kos -type f | sort | head -n 1")
    lab.ssh(OTHER, f"cp -a {path} /root/kept && echo >> {path}")
    row = compare()
    assert len(set(row["generations"].values())) == 2
    assert {("generation", "stored copy"), ("file", path.removeprefix(tree))} <= named(row)
    lab.ssh(OTHER, f"cp -a /root/kept {path}")
    assert compare()["equal"]


def test_another_configuration_is_named_by_what_it_changes(lab, layer, compare, tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(CHANGED)
    lab.deploy(ONE, "--profile", PROFILE, "--site", str(path))
    row = compare()
    assert not row["equal"]
    assert {("generation", "id"), ("ports", "caddy https")} <= named(row), named(row)
    lab.deploy(ONE, "--profile", PROFILE, "--site", str(layer))
    assert compare()["equal"]


def test_a_package_that_is_missing_on_one_is_named(lab, compare):
    lab.ssh(OTHER, "dpkg --force-depends --remove valkey-tools 2>&1")
    row = compare()
    missing = [entry for entry in row["differences"] if (entry["kind"], entry["name"]) == ("package", "valkey-tools")]
    assert [entry["other"] for entry in missing] == ["not there"], row["differences"]
