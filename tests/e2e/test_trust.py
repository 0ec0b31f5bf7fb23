# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node accepts generations from whom it trusts, and from nobody else."""

from __future__ import annotations

import gzip
import json
import subprocess

import pytest
from labnodes import INVENTORY, ROOT

LAYER = "networking: {ports: {frontend: 8443}}\n"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """The key of a controller that the node has never seen."""
    path = tmp_path_factory.mktemp("stranger") / "laptop"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "laptop", "-f", str(path)], check=True)
    return path


def state(lab, node):
    find = "find /etc /var/lib/kos -type f -not -name lock -exec sha256sum {} + | sort -k2 | sha256sum"
    return lab.ssh(node, find), lab.ssh(node, "systemctl list-units --state=running --plain --no-legend 'kos-*'")


def test_the_first_controller_is_enrolled_and_named_in_status(lab, deployed):
    (row,) = json.loads(lab.kai("trust", "list", "-i", INVENTORY, "--limit", deployed, "--json").stdout)[deployed]
    assert row["current"] and row["fingerprint"].startswith("SHA256:")
    assert lab.status(deployed)["generation"]["signed_by"] == row["name"]


def test_an_unknown_signer_is_refused_before_anything_changes(lab, deployed, stranger, tmp_path):
    layer = tmp_path / "site.yaml"
    layer.write_text((ROOT / "configs/overrides/lab.yaml").read_text() + LAYER)
    argv = ["deploy", "-i", INVENTORY, "--limit", deployed, "--site", str(layer)]
    before = state(lab, deployed)
    done = lab.kai(*argv, check=False, env={"KOS_SIGNING_KEY": str(stranger)})
    assert done.returncode == 5
    said = " ".join(done.stderr.split())
    assert "whom this node does not trust" in said and "kai trust add" in said and "Nothing was changed" in said
    assert state(lab, deployed) == before


def test_a_second_controller_deploys_once_it_is_trusted_and_not_after(lab, deployed, stranger):
    where = ["-i", INVENTORY, "--limit", deployed]
    lab.kai("trust", "add", "laptop", str(stranger.with_suffix(".pub")), *where)
    lab.kai("deploy", *where, env={"KOS_SIGNING_KEY": str(stranger)})
    assert lab.status(deployed)["generation"]["signed_by"] == "laptop"
    lab.kai("trust", "remove", "laptop", *where)
    findings = json.loads(lab.kai("doctor", *where, "--json", check=False).stdout)[deployed]
    assert [row["problem"] for row in findings] == ["nobody this node trusts has signed the current generation"]
    lab.deploy(deployed)
    assert lab.kai("doctor", *where).returncode == 0


def test_a_bit_flipped_on_the_way_is_refused(lab, deployed):
    """The archive in the controller's cache is altered after it was signed; the node has never had it."""
    lab.ssh(deployed, "rm -rf /var/lib/kos/generations/[0-9]*/node/kos_node/main.py")
    plan = lab.run("ansible", deployed, "-i", INVENTORY, "-m", "kind.kos.facts", "-o").stdout
    assert "SUCCESS" in plan
    cached = max((ROOT.home() / ".cache/kos/generations").glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
    raw = bytearray(gzip.decompress(cached.read_bytes()))
    where = raw.find(b"kos-status")
    raw[where] ^= 1
    archive = ROOT.home() / ".cache/kos" / "flipped.tar.gz"
    archive.write_bytes(gzip.compress(bytes(raw)))
    identity = cached.name.removesuffix(".tar.gz")
    try:
        arguments = json.dumps({"step": "stage", "id": identity, "archive": str(archive)})
        done = lab.run("ansible", deployed, "-i", INVENTORY, "-m", "kind.kos.converge", "-a", arguments, check=False)
    finally:
        archive.unlink()
    assert done.returncode != 0
    assert "not the generation" in done.stdout + done.stderr
    lab.deploy(deployed)
    assert lab.healthy(deployed)
