# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `kai chat` makes of a gateway's answers; the gateway is a class of the test's own."""

from __future__ import annotations

import io
import json
import types

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import chat, models
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root


class Answer(io.BytesIO):
    """A body that is read as a whole or line by line."""

    status = 0


class Gateway:
    """Answers every request with `status` and `body`; remembers what it was asked."""

    status, body, asked, headers, port = 200, b"", {}, {}, 0

    def __init__(self, _host, port, **_options):
        Gateway.port = port

    def request(self, _method, path, body, headers):
        Gateway.asked = {"path": path, **json.loads(body)}
        Gateway.headers = headers

    def getresponse(self):
        answer = Answer(Gateway.body)
        answer.status = Gateway.status
        return answer

    def close(self):
        pass


@pytest.fixture
def root(tmp_path, monkeypatch):
    manifest = {
        "services": [{"name": "caddy", "capabilities": ["gateway"]}],
        "ports": [
            {"service": "caddy", "name": "http", "port": 80},
            {"service": "caddy", "name": "https", "port": 8443},
        ],
    }
    monkeypatch.setattr(chat.store, "current", lambda _root: types.SimpleNamespace(manifest=manifest))
    monkeypatch.setattr(chat.Vault, "reveal", lambda _self, name: f"key of {name}")
    monkeypatch.setattr(chat.ssl, "create_default_context", lambda **_given: None)
    monkeypatch.setattr(chat.http.client, "HTTPSConnection", Gateway)
    return Root(str(tmp_path))


def answers(status, body):
    Gateway.status, Gateway.body = status, body


def stream(*events):
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def words(text):
    return {"choices": [{"delta": {"content": text}}]}


def test_the_words_come_one_by_one_and_the_key_goes_as_a_bearer(root):
    answers(
        200, b": ping\n\n" + stream({"choices": [{"delta": {"role": "assistant"}}]}, words("kOS"), words(" answers"))
    )
    assert list(chat.answer(root, "who?", "small")) == ["kOS", " answers"]
    assert Gateway.port == 8443 and Gateway.headers["Authorization"] == "Bearer key of status.api_key"
    assert Gateway.asked["path"] == "/v1/chat/completions" and Gateway.asked["model"] == "small"
    assert Gateway.asked["stream"] is True and Gateway.asked["messages"][0]["content"] == "who?"


def test_an_error_in_the_middle_is_no_answer(root):
    answers(200, stream(words("kOS"), {"error": {"message": "out of memory"}}))
    with pytest.raises(chat.NoAnswer, match="the model stopped: out of memory"):
        list(chat.answer(root, "who?"))


@pytest.mark.parametrize(
    ("status", "body", "known", "sentence"),
    [
        (404, b"404 Not Found", [], "no service of this node serves language models"),
        (400, b'{"error": {"message": "model not found"}}', [], "this node has no model: kai model add"),
        (
            400,
            b'{"error": {"message": "model \'x\' not found"}}',
            ["small"],
            r"has no model 'default' \(it has: small\)",
        ),
        (500, b"<html>", ["small"], "the language models answer 500: <html>"),
        (502, b"", ["small"], "answer 502"),
    ],
)
def test_each_refusal_says_what_to_do(root, monkeypatch, status, body, known, sentence):
    monkeypatch.setattr(models, "listing", lambda _root: [{"name": name} for name in known])
    answers(status, body)
    with pytest.raises(chat.NoAnswer, match=sentence):
        list(chat.answer(root, "who?"))


def test_a_machine_without_a_deploy_says_so(root, monkeypatch):
    monkeypatch.setattr(chat.store, "current", lambda _root: None)
    with pytest.raises(chat.NoAnswer, match="nothing has been deployed here"):
        list(chat.answer(root, "who?"))
