# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that answers: a chat request through the gateway, in pieces as they come, for those who may ask."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest
import yaml
from labnodes import INVENTORY, ROOT

sys.path.insert(0, str(ROOT / "tests" / "models"))
import fixed_answer

SENTENCE = "".join(fixed_answer.ANSWER)
URL = "https://localhost/v1"
KEY = "systemd-creds decrypt --name=kos-status.api_key /var/lib/kos/secrets/status.api_key.cred -"
PASSWORD = (
    "systemd-creds decrypt --name=kos-status.operator_password /var/lib/kos/secrets/status.operator_password.cred -"
)

# Run on the node: asks through the gateway as a client library does, and tells what came at which moment.
ASK = """
import http.client, json, ssl, subprocess, sys, time
credentials, stream = sys.argv[1], sys.argv[2] == "stream"
context = ssl.create_default_context(cafile="/var/lib/kos-certificates/ca.crt")
connection = http.client.HTTPSConnection("localhost", 443, timeout=60, context=context)
body = {"model": "default", "stream": stream, "messages": [{"role": "user", "content": "Who are you?"}]}
headers = {"Content-Type": "application/json"}
if credentials != "-":
    headers["Authorization"] = credentials
connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
answer = connection.getresponse()
pieces = []
while piece := answer.read1(65536):
    pieces.append(piece.decode())
print(json.dumps({"status": answer.status, "pieces": pieces}))
"""


@pytest.fixture(scope="module")
def lock(lab, tmp_path_factory):
    """A lock with llama.cpp's image, built on this machine where that has not been done."""
    path = tmp_path_factory.mktemp("lock") / "images.lock"
    lab.environment["KOS_SITE_LOCK"] = str(path)
    lab.kai("unit", "build", "llama_cpp")
    yield path
    lab.environment.pop("KOS_SITE_LOCK", None)


@pytest.fixture(scope="module")
def answering(lab, lock, node, tmp_path_factory):
    """A node with llama.cpp, and no model yet."""
    layer = tmp_path_factory.mktemp("layer") / "models.yaml"
    layer.write_text(yaml.safe_dump({"services": {"llm_backends": ["llama_cpp"]}}))
    lab.deploy(node, "--site", str(layer))
    lab.ssh(node, f"cat > /tmp/ask.py <<'EOF'\n{ASK}\nEOF")
    return node


def ask(lab, node, credentials="Bearer $(" + KEY + ")", how="whole"):
    return json.loads(lab.ssh(node, f'python3 /tmp/ask.py "{credentials}" {how}'))


def test_without_a_model_the_node_is_well_and_says_what_is_missing(lab, answering):
    assert lab.healthy(answering)
    done = lab.kai("chat", "hello", "-i", INVENTORY, "--limit", answering, check=False)
    assert done.returncode == 1 and "this node has no model: kai model add FILE|URL --sha256 HEX" in done.stderr


def test_a_question_is_answered_through_the_gateway(lab, answering, tmp_path):
    model = tmp_path / "fixed.gguf"
    fixed_answer.write(model)
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    before = lab.ssh(answering, "systemctl show -P MainPID kos-llama-cpp")
    lab.kai("model", "add", str(model), "--sha256", sha256, "-i", INVENTORY, "--limit", answering)
    # The server looks again, and is not restarted for it.
    assert lab.ssh(answering, "systemctl show -P MainPID kos-llama-cpp") == before
    done = lab.kai("chat", "Who are you?", "-i", INVENTORY, "--limit", answering)
    assert done.stdout.strip() == SENTENCE
    whole = ask(lab, answering)
    assert whole["status"] == 200
    assert json.loads("".join(whole["pieces"]))["choices"][0]["message"]["content"] == SENTENCE


def in_pieces(answer):
    """The words of a stream, and in how many pieces they came."""
    lines = "".join(answer["pieces"]).split("\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


def test_the_answer_comes_in_pieces(lab, answering):
    streamed = ask(lab, answering, how="stream")
    assert in_pieces(streamed) == SENTENCE
    # A gateway that kept words back would hand over everything at once.
    assert "[DONE]" not in streamed["pieces"][0]


@pytest.mark.parametrize(
    ("credentials", "status"),
    [
        ("-", 401),
        ("Bearer wrong", 401),
        ("Bearer ", 401),
        (f"Bearer $({PASSWORD})", 401),
        (f"Basic $(printf kos:%s $({KEY}) | base64 -w0)", 401),
        (f"Basic $(printf kos:%s $({PASSWORD}) | base64 -w0)", 200),
        (f"Bearer $({KEY})", 200),
    ],
)
def test_only_the_key_and_the_password_let_in(lab, answering, credentials, status):
    assert ask(lab, answering, credentials)["status"] == status


def test_the_server_runs_without_root_and_reads_models_only(lab, answering):
    user = "ps -o user= -p $(systemctl show -P MainPID kos-llama-cpp) | tr -d ' '"
    assert lab.ssh(answering, user) != "root"
    assert lab.ssh(answering, "ps -eo user:32,comm | awk '/llama-server/ {print $1}' | sort -u") == "kos-llama-cpp"
    assert lab.ssh(answering, "ss -Htln 'sport = :8080' | awk '{print $4}'") == "127.0.0.1:8080"
    mount = lab.ssh(answering, "awk '$5 == \"/models\" {print $6}' /proc/$(pgrep -o llama-server)/mountinfo")
    assert "ro" in mount.split(",")


@pytest.mark.long
def test_nginx_streams_too(lab, answering, tmp_path):
    layer = tmp_path / "nginx.yaml"
    layer.write_text(yaml.safe_dump({"services": {"llm_backends": ["llama_cpp"], "gateway": "nginx"}}))
    lab.deploy(answering, "--site", str(layer))
    streamed = ask(lab, answering, how="stream")
    assert in_pieces(streamed) == SENTENCE
    # A gateway that kept words back would hand over everything at once.
    assert "[DONE]" not in streamed["pieces"][0]
    assert [ask(lab, answering, each)["status"] for each in ("-", "Bearer wrong", f"Bearer $({KEY})")] == [
        401,
        401,
        200,
    ]
