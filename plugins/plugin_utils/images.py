# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image locks: each container image with its registry, tag, and digest per architecture.

``services/images.lock`` is the project's; the site's own, which `kai unit lock` and `kai unit build` write, goes
over it row by row and digest by digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from .documents import read_document
from .models import Strict, parse

UNRESOLVED = "unresolved"
Digest = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|unresolved)$")]
Architecture = Literal["amd64", "arm64"]
ImageName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
# Where images that kOS builds itself are kept: no registry of anybody's.
BUILT = "localhost/kos"


class Image(Strict):
    """One image; a digest is that of the architecture's own manifest, never of an index."""

    repository: Annotated[str, Field(pattern=r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+$", description="with registry")]
    tag: str | None = Field(default=None, description="for people, and for `kai unit lock`; a deploy reads the digest")
    digests: dict[Architecture, Digest]
    key: Annotated[
        str | None,
        Field(pattern=r"^[A-Za-z0-9+/=]+$", description="base64 of the PEM public key of its cosign signature"),
    ] = None
    licence: Annotated[str, Field(description="SPDX expression of what is inside, or `proprietary`")]
    source: Annotated[str, Field(description="where the tag was documented, or how it is built")]

    def digest(self, architecture: str) -> str | None:
        """The digest for `architecture`, or None where nobody has resolved it yet."""
        return next((digest for name, digest in _resolved(self.digests).items() if name == architecture), None)

    def reference(self, architecture: str) -> str:
        """``registry/name@sha256:…``. Raises KeyError where it is unresolved."""
        digest = self.digest(architecture)
        if digest is None:
            raise KeyError(architecture)
        return f"{self.repository}@{digest}"


class ImageLock(Strict):
    """A lock file."""

    version: Literal[1]
    images: dict[ImageName, Image]


def load_images(path: Path, site: Path | None = None) -> dict[str, Image]:
    """The images of the lock at `path`, with the site's digests over them. Raises ConfigurationError."""
    found = dict(_read(path).images) if path.is_file() else {}
    for name, row in (_read(site).images if site is not None and site.is_file() else {}).items():
        known = found.get(name)
        # A row that names another repository is another image: nothing of the old one holds for it.
        same = known is not None and known.repository == row.repository
        digests = (known.digests if known is not None and same else {}) | _resolved(row.digests)
        found[name] = row.model_copy(update={"digests": digests})
    return found


def _resolved(digests: Mapping[Architecture, str]) -> dict[Architecture, str]:
    return {name: digest for name, digest in digests.items() if digest != UNRESOLVED}


def _read(path: Path) -> ImageLock:
    document = read_document(path)
    return parse(ImageLock, document.data, document.place)
