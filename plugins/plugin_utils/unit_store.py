# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's unit store: an OCI image layout of what was built, imported or bundled here."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO


def store() -> Path:
    """The folder of the store; it may not be there yet. ``KOS_UNIT_STORE`` names another."""
    given = os.environ.get("KOS_UNIT_STORE")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(given) if given else Path(data) / "kos" / "units"


def blob(layout: Path, digest: str) -> Path:
    """Where the blob with ``sha256:…`` lies."""
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def write_blobs(layout: Path, digests: Iterable[str], target: IO[bytes]) -> list[str]:
    """Write, as a tar archive, every blob of those images of `digests` that the store holds; returns which."""
    found = []
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        written: set[str] = set()
        for digest in digests:
            if not blob(layout, digest).is_file():
                continue
            found.append(digest)
            for name in blobs_of(layout, digest):
                if name not in written:
                    written.add(name)
                    tar.add(blob(layout, name), f"blobs/sha256/{name.removeprefix('sha256:')}")
    return found


def blobs_of(layout: Path, digest: str) -> list[str]:
    """The digests of an image's blobs: its manifest, its configuration, its layers. Raises OSError, ValueError."""
    manifest = json.loads(blob(layout, digest).read_text(encoding="utf-8"))
    return [digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
