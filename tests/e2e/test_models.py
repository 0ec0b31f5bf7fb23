# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Language models come, are verified, and go, on a node that nothing else was deployed to."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest
from labnodes import INVENTORY, ROOT

sys.path.insert(0, str(ROOT / "tests" / "models"))
import fixed_answer

SEEN = "find /var/lib/kos-models -printf '%P %y %m %u\\n' | sort"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "fixed.gguf"
    fixed_answer.write(path)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def add(lab, node, source, sha256, *options, check=True):
    return lab.kai(
        "model", "add", str(source), "--sha256", sha256, *options, "-i", INVENTORY, "--limit", node, check=check
    )  # fmt: skip


def listed(lab, node):
    done = lab.kai("model", "list", "-i", INVENTORY, "--limit", node, "--json")
    return {row["name"]: row["default"] for row in json.loads(done.stdout)[node]}


def said(done):
    return " ".join((done.stdout + done.stderr).split())


def test_a_model_is_added_once_verified_and_readable_by_services_only_to_read(lab, node, model):
    add(lab, node, model, digest(model))
    kept = f"sha256/{digest(model)}"
    rows = lab.ssh(node, SEEN)
    assert f"{kept} f 644 root" in rows and "fixed.gguf l 777 root" in rows and "default.gguf l 777 root" in rows
    assert lab.ssh(node, "sha256sum < /var/lib/kos-models/fixed.gguf").startswith(digest(model))
    add(lab, node, model, digest(model))
    assert lab.ssh(node, SEEN) == rows and listed(lab, node) == {"fixed": True}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda data: data[:-1] + b"x", "the SHA-256 of"),
        (lambda data: data[: len(data) // 2], "the SHA-256 of"),
        (lambda data: b"<html>" + data, "not a GGUF file"),
    ],
    ids=["altered", "cut", "another"],
)
def test_what_is_not_the_model_is_refused_and_nothing_changes(lab, node, model, tmp_path, make, sentence):
    other = tmp_path / "other.gguf"
    other.write_bytes(make(model.read_bytes()))
    before = lab.ssh(node, SEEN)
    done = add(lab, node, other, digest(model), check=False)
    assert done.returncode == 1 and sentence in said(done) and "nothing was added" in said(done)
    assert lab.ssh(node, SEEN) == before


def test_the_node_fetches_what_it_is_told_to_and_verifies_it(lab, node, model, tmp_path):
    other = tmp_path / "other.gguf"
    fixed_answer.write(other, ["an", "other"])
    served = "/tmp/served"
    data = other.read_bytes().hex()
    lab.kai("lab", "ssh", node, f"mkdir -p {served} && python3 -c 'import sys; "
            f"open(\"{served}/other.gguf\", \"wb\").write(bytes.fromhex(sys.stdin.read()))'", input=data)  # fmt: skip
    web = f"systemd-run --quiet --unit=web python3 -m http.server --bind 127.0.0.1 --directory {served} 8099"
    lab.ssh(node, f"{web}; timeout 20 sh -c 'until ss -tln | grep -q :8099; do sleep 0.2; done'")
    address = "http://127.0.0.1:8099"
    wrong = add(lab, node, f"{address}/other.gguf", digest(model)[::-1], check=False)
    assert wrong.returncode == 1 and "the file's SHA-256 is" in said(wrong)
    gone = add(lab, node, f"{address}/gone.gguf", digest(other), check=False)
    assert gone.returncode == 1 and "answers 404" in said(gone)
    add(lab, node, f"{address}/other.gguf", digest(other), "--name", "second")
    lab.ssh(node, "systemctl stop web")
    assert listed(lab, node) == {"fixed": True, "second": False}
    cut_off = add(lab, node, f"{address}/third.gguf", digest(model)[::-1], check=False)
    assert cut_off.returncode == 1 and "this node cannot fetch" in said(cut_off)
    assert lab.ssh(node, "ls /var/lib/kos-models/incoming") == ""


def test_a_model_without_room_is_refused_before_it_is_sent(lab, node, model, tmp_path):
    big = tmp_path / "big.gguf"
    with big.open("wb") as stream:
        stream.write(model.read_bytes()[:64])
        stream.truncate(400 * 2**20)
    lab.ssh(node, "mkdir -p /tmp/real && cp -a /var/lib/kos-models/. /tmp/real/ "
            "&& mount -t tmpfs -o size=300m models /var/lib/kos-models")  # fmt: skip
    try:
        done = add(lab, node, big, hashlib.file_digest(big.open("rb"), "sha256").hexdigest(), check=False)
        assert done.returncode == 1 and "no room on the disk of /var/lib/kos-models" in said(done)
        assert lab.ssh(node, "find /var/lib/kos-models -type f") == ""
    finally:
        lab.ssh(node, "umount /var/lib/kos-models")


def test_the_default_stays_until_another_is_chosen(lab, node):
    kai = ("-i", INVENTORY, "--limit", node)
    done = lab.kai("model", "remove", "fixed", *kai, check=False)
    assert done.returncode == 1 and "'fixed' is the default" in said(done)
    lab.kai("model", "default", "second", *kai)
    lab.kai("model", "remove", "fixed", *kai)
    assert listed(lab, node) == {"second": True}
    assert lab.ssh(node, "ls /var/lib/kos-models/sha256 | wc -l") == "1"


def test_an_uninstall_keeps_models_and_purge_removes_them(lab, node):
    kai = ("-i", INVENTORY, "--limit", node, "--yes-i-know", node)
    lab.kai("uninstall", *kai)
    assert "/var/lib/kos-models" in lab.ssh(node, "cat /var/lib/kos/KEPT")
    assert listed(lab, node) == {"second": True}
    lab.kai("uninstall", "--purge", *kai)
    assert lab.ssh(node, "ls -d /var/lib/kos /var/lib/kos-models 2>/dev/null", check=False) == ""
