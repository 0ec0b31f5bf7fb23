# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the node's language models a question, the way a program of its users does: through the gateway, with the key."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator
from typing import Any

from . import models, store
from .files import NodeError, Root
from .secrets import Vault

_KEY = "status.api_key"
_AUTHORITY = "/var/lib/kos-certificates"
# Seconds without a byte: a large model is first read from the disk.
_PATIENCE = 600


class NoAnswer(NodeError):
    """The node's language models did not answer; the text says why and what to do."""


def answer(root: Root, question: str, model: str = models.DEFAULT) -> Iterator[str]:
    """The words of the answer, as they come. Raises NoAnswer."""
    generation = store.current(root)
    if generation is None:
        raise NoAnswer("nothing has been deployed here: kai deploy")
    asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": question}]}
    headers = {"Authorization": f"Bearer {Vault(root).reveal(_KEY)}", "Content-Type": "application/json"}
    connection = http.client.HTTPSConnection(
        "localhost", _port(generation.manifest), timeout=_PATIENCE, context=_context(root)
    )
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise NoAnswer(_why(response.status, response.read(), root, model))
        for line in response:
            yield from _words(line)
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(f"the gateway does not answer ({error}): kai doctor finds out why") from error
    finally:
        connection.close()


def _port(manifest: dict[str, Any]) -> int:
    gateways = [row["name"] for row in manifest["services"] if "gateway" in row["capabilities"]]
    return int(next(row["port"] for row in manifest["ports"] if row["service"] in gateways and row["name"] == "https"))


def _context(root: Root) -> ssl.SSLContext:
    """Trusts the node's own authority, and the certificate of a gateway that has signed it itself."""
    context = ssl.create_default_context(cafile=root.join(f"{_AUTHORITY}/ca.crt"))
    own = root.join(f"{_AUTHORITY}/gateway.crt")
    if os.path.exists(own):
        context.load_verify_locations(cafile=own)
    return context


def _words(line: bytes) -> Iterator[str]:
    """What one line of an event stream adds to the answer. Raises NoAnswer where it is an error."""
    kind, _colon, data = line.decode(errors="replace").strip().partition(":")
    if kind not in ("data", "error") or data.strip() in ("", "[DONE]"):
        return
    event = json.loads(data)
    if "error" in event:
        raise NoAnswer(f"the model stopped: {_message(event)}")
    for choice in event.get("choices", []):
        if text := choice.get("delta", {}).get("content"):
            yield text


def _why(status: int, body: bytes, root: Root, model: str) -> str:
    if status == http.client.NOT_FOUND:
        return "no service of this node serves language models: ask for one with services.llm_backend: llama_cpp"
    known = [row["name"] for row in models.listing(root)]
    if not known:
        return "this node has no model: kai model add FILE|URL --sha256 HEX"
    if "not found" in (said := _message_of(body)):
        return f"this node has no model '{model}' (it has: {', '.join(known)}): kai model default NAME, or --model NAME"
    return f"the language models answer {status}: {said}"


def _message_of(body: bytes) -> str:
    try:
        return _message(json.loads(body))
    except ValueError:
        return body.decode(errors="replace").strip()[:200]


def _message(event: dict[str, Any]) -> str:
    error = event.get("error")
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
