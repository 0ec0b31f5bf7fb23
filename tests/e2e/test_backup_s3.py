# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups into an object store that speaks S3: Debian's moto, on the node itself."""

from __future__ import annotations

import json

import pytest
from labnodes import INVENTORY, ROOT

SECRETS = {"restic.s3_access_key": "access-key-of-test", "restic.s3_secret_key": "secret-key-of-the-test"}
OBJECT_STORE = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
needed="python3-moto python3-flask python3-flask-cors python3-boto3"
apt-get -qq -y install --no-install-recommends $needed >/dev/null 2>&1
systemd-run -q --unit=object-store python3 -c 'from moto.server import main; main(["-H", "127.0.0.1", "-p", "5000"])'
timeout 60 sh -c 'until ss -Htln | grep -q 127.0.0.1:5000; do sleep 0.2; done'
python3 - <<'END'
import boto3
keys = {"aws_access_key_id": "access-key-of-test", "aws_secret_access_key": "secret-key-of-the-test"}
boto3.client("s3", endpoint_url="http://127.0.0.1:5000", region_name="us-east-1", **keys).create_bucket(Bucket="kos")
END
"""


@pytest.fixture(scope="module")
def stored(lab, node, tmp_path_factory):
    """A node whose repository is a bucket, its keys the operator's."""
    lab.ssh(node, OBJECT_STORE)
    folder = tmp_path_factory.mktemp("s3")
    layer = folder / "site.yaml"
    layer.write_text(
        (ROOT / "configs/overrides/lab.yaml").read_text()
        + "backup:\n  repository: s3:http://127.0.0.1:5000/kos/nodes\n  retention: 90d\n"
    )
    (folder / "secrets.json").write_text(json.dumps({"kos_secrets": SECRETS}))
    lab.playbook(node, "-e", f"@{folder / 'secrets.json'}", "-e", f"kos_site_layer={layer}")
    return node


def test_a_bucket_is_backed_up_to_listed_and_verified(lab, stored):
    common = ["-i", INVENTORY, "--limit", stored, "--json"]
    record = json.loads(lab.kai("backup", *common).stdout)[stored]
    assert [row["id"] for row in json.loads(lab.kai("backup", "--list", *common).stdout)[stored]] == [
        record["snapshot"]
    ]
    assert json.loads(lab.kai("verify", "--data", "100%", *common).stdout)[stored]["ok"]


def test_the_keys_are_nowhere_in_clear(lab, stored):
    for value in SECRETS.values():
        found = lab.ssh(stored, f"grep -rlF {value} /etc /var/lib/kos /var/lib/kos-backup /run/kos-backup", check=False)
        assert found == ""


def test_what_was_stored_can_be_restored(lab, stored):
    key = (
        "REDISCLI_AUTH=$(systemd-creds decrypt --name=kos-valkey.password /var/lib/kos/secrets/valkey.password.cred -)"
    )
    client = f"{key} valkey-cli -h 127.0.0.1 --user kos --no-auth-warning"
    lab.ssh(stored, f"{client} set precious 42")
    lab.kai("backup", "-i", INVENTORY, "--limit", stored)
    lab.ssh(stored, f"{client} del precious; {client} set other 1")
    done = lab.kai("restore", "--service", "valkey", "--overwrite", "-i", INVENTORY, "--limit", stored)
    assert "healthy" in done.stdout
    assert lab.ssh(stored, f"{client} get precious; {client} exists other").split() == ["42", "0"]
