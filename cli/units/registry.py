# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images in registries: a tag's digests, fetch and push by digest, sign. skopeo and cosign do the talking."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...plugins.plugin_utils import oci, unit_store
from ...plugins.plugin_utils.images import Architecture, Image
from . import tools
from .tools import ToolFailed

_INDEXES = (oci.INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json")
_ARCHITECTURES: tuple[Architecture, ...] = ("amd64", "arm64")
# What skopeo says, and the sentence for a person. The first that fits counts.
_REASONS = (
    (("no such host", "dial tcp", "i/o timeout", "connection refused", "network is unreachable", "TLS handshake"),
     "its registry cannot be reached from here"),
    (("unauthorized", "authentication required", "denied", "403 (Forbidden)"),
     "its registry wants a login: skopeo login, then run again"),
    (("manifest unknown", "name unknown", "not found"), "its registry has no such tag"),
    (("toomanyrequests",), "its registry asks for patience: wait, or log in with skopeo login"),
)  # fmt: skip


@dataclass(frozen=True)
class CosignKey:
    """A key pair of cosign: made on first use, private to its user, without a passphrase like the signing key."""

    private: Path
    public: Path

    @property
    def encoded(self) -> str:
        """The public half as an image lock has it."""
        return base64.b64encode(self.public.read_bytes()).decode()


def resolve(name: str, image: Image, insecure: bool = False) -> dict[Architecture, str]:
    """The digest of the image for each architecture that its tag has. Raises ToolFailed with one sentence."""
    if image.tag is None:
        raise ToolFailed(f"{name}: the lock names no tag of {image.repository}: name one with --tag")
    reference = f"docker://{image.repository}:{image.tag}"
    raw = _skopeo(name, image, ["inspect", *_tls("--tls-verify", insecure), "--raw", reference])
    described = json.loads(raw)
    if described.get("mediaType") in _INDEXES or "manifests" in described:
        found = _of_index(described)
    else:
        found = _of_manifest(name, image, raw.encode(), reference, insecure)
    if not found:
        raise ToolFailed(f"{name}: {image.repository}:{image.tag} has no image for amd64 or arm64")
    return found


def _of_index(index: Mapping[str, Any]) -> dict[Architecture, str]:
    found: dict[Architecture, str] = {}
    for row in index["manifests"]:
        platform = row.get("platform", {})
        for architecture in _ARCHITECTURES:
            if platform.get("os") == "linux" and platform.get("architecture") == architecture:
                found.setdefault(architecture, row["digest"])
    return found


def _of_manifest(name: str, image: Image, raw: bytes, reference: str, insecure: bool) -> dict[Architecture, str]:
    """A tag that names one image: which architecture it is for stands in its configuration."""
    argv = ["inspect", *_tls("--tls-verify", insecure), "--config", reference]
    config = json.loads(_skopeo(name, image, argv))
    return {one: oci.digest(raw) for one in _ARCHITECTURES if config.get("architecture") == one}


def pull(name: str, image: Image, architecture: Architecture, store: Path, insecure: bool = False) -> str:
    """Fetch the image into the unit store by its digest; returns that. Raises ToolFailed, StoreBroken."""
    digest = image.digest(architecture)
    if digest is None:
        raise ToolFailed(f"{name}: no digest for {architecture} is known: kai unit lock {name}")
    named = f"{image.repository}@{digest}"
    store.mkdir(parents=True, exist_ok=True)
    argv = ["copy", "--quiet", "--preserve-digests", *_tls("--src-tls-verify", insecure)]
    _skopeo(name, image, [*argv, f"docker://{named}", f"oci:{store}:{named}"])
    unit_store.add_image(store, image.repository, unit_store.read_blob(store, digest), architecture)
    unit_store.verify_image(store, digest)
    return digest


def push(name: str, source: str, target: Image, store: Path, insecure: bool = False) -> None:
    """Copy the images of the store to a registry, every byte as it is. Raises ToolFailed."""
    for architecture in target.digests:
        digest = target.digest(architecture)
        argv = ["copy", "--quiet", "--preserve-digests", *_tls("--dest-tls-verify", insecure)]
        tag = f"{target.tag}-{architecture}"
        _skopeo(name, target, [*argv, f"oci:{store}:{source}@{digest}", f"docker://{target.repository}:{tag}"])


def cosign_key() -> CosignKey:
    """This controller's key pair for images. Raises ToolFailed."""
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kos"
    key = CosignKey(base / "cosign.key", base / "cosign.pub")
    if not key.private.exists():
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        with unit_store.locked(base):
            if not key.private.exists():
                prefix = str(base / "cosign")
                tools.run(["cosign", "generate-key-pair", f"--output-key-prefix={prefix}"], _cosign_environment())
    return key


def sign(reference: str, key: CosignKey, insecure: bool = False) -> None:
    """Put cosign's signature beside the image in its registry; nothing is sent to a public log. Raises ToolFailed."""
    argv = ["cosign", "sign", "--yes", "--tlog-upload=false", f"--key={key.private}"]
    tools.run([*argv, *(["--allow-http-registry"] if insecure else []), reference], _cosign_environment())


def verify(reference: str, public: str, insecure: bool = False) -> None:
    """Check cosign's signature of an image in its registry; `public` as in an image lock. Raises ToolFailed."""
    with tempfile.NamedTemporaryFile(prefix="kos-", suffix=".pub") as key:
        key.write(base64.b64decode(public))
        key.flush()
        argv = ["cosign", "verify", "--insecure-ignore-tlog=true", f"--key={key.name}"]
        try:
            tools.run([*argv, *(["--allow-http-registry"] if insecure else []), reference], _cosign_environment())
        except ToolFailed as error:
            if any(word in str(error) for word in ("no matching signatures", "no signatures found")):
                raise ToolFailed(f"{reference} has no signature by the key that the lock names") from error
            raise


def _cosign_environment() -> dict[str, str]:
    return {"COSIGN_PASSWORD": "", **os.environ}


def _tls(option: str, insecure: bool) -> list[str]:
    return [f"{option}=false"] if insecure else []


def _skopeo(name: str, image: Image, argv: list[str]) -> str:
    # What is copied is proved by digest: whose signature it needs is the node's to say.
    try:
        return tools.run(["skopeo", "--insecure-policy", *argv])
    except ToolFailed as error:
        said = str(error)
        for words, reason in _REASONS:
            if any(word in said for word in words):
                raise ToolFailed(f"{name}: {image.repository}: {reason}") from error
        raise ToolFailed(f"{name}: {said}") from error
