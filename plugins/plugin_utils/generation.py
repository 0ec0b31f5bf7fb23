# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A generation on the controller: a content-addressed tree and the archive it travels in."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..module_utils.node import merkle

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Generation:
    """`files` maps a path inside the tree to its content; `id` is the SHA3-256 Merkle root over all of them."""

    id: str
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Generation:
        """The generation with `manifest` and `files`."""
        text = json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        complete = {**files, MANIFEST: text.encode()}
        return cls(merkle.root((name, merkle.digest(content)) for name, content in complete.items()), complete)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the node is told to do, as plain data."""
        data: dict[str, Any] = json.loads(self.files[MANIFEST])
        return data

    def archive(self) -> bytes:
        """The tree as a gzip-compressed tar; equal generations give equal bytes."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in sorted(self.files.items()):
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o644
                tar.addfile(member, io.BytesIO(content))
        return gzip.compress(raw.getvalue(), compresslevel=6, mtime=0)
