# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian packages of a bundle, with all they depend on, as apt resolves and proves them; and their repository.

They are resolved against an empty system: a node may have any of them, or none, in any version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

from ...plugins.plugin_utils import debs as resolver
from ...plugins.plugin_utils.apt import NoMirror
from ...plugins.plugin_utils.debs import IndexBroken, field
from ...plugins.plugin_utils.unit_store import locked
from ..units import tools


@dataclass(frozen=True)
class Deb:
    """A package file: its name in a repository, its paragraph of Debian's signed index, and where it lies now."""

    filename: str
    paragraph: str
    path: Path

    @property
    def sha256(self) -> str:
        """Its digest, as Debian's signed index has it."""
        return field(self.paragraph, "SHA256")


def fetch(together: Sequence[Collection[str]], architecture: str, cache: Path) -> list[Deb]:
    """The packages and what they need, fetched into `cache` where they are not there yet. Raises ToolFailed.

    Each of `together` is a set that one machine installs. The way to them is that of this machine's apt, which proves
    each by the index that Debian signed.
    """
    if not together:
        return []
    folder = cache / architecture
    try:
        with locked(folder):
            paragraphs = _fetch(together, architecture, folder)
        files = {path.name: path for path in (folder / "archives").glob("*.deb")}
        return sorted((_deb(paragraph, files) for paragraph in paragraphs), key=lambda deb: deb.filename)
    except (NoMirror, IndexBroken) as error:
        raise tools.ToolFailed(str(error)) from error


def _fetch(together: Sequence[Collection[str]], architecture: str, folder: Path) -> dict[str, None]:
    by = resolver.apart(folder, architecture, tools.run)
    by.get("update")
    for packages in together:
        by.get("--download-only", "install", *sorted(packages))
    by.get("autoclean")
    return dict.fromkeys(paragraph for found in resolver.resolve(by, together) for paragraph in found)


def _deb(paragraph: str, files: dict[str, Path]) -> Deb:
    name, version, architecture = (field(paragraph, key) for key in ("Package", "Version", "Architecture"))
    cached = f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
    if cached not in files:
        raise tools.ToolFailed(f"apt did not fetch {cached}: run again")
    return Deb(unquote(field(paragraph, "Filename")), paragraph, files[cached])


def index(debs: Iterable[Deb]) -> bytes:
    """The repository's ``Packages``: Debian's own paragraphs, with Debian's own digests."""
    return "".join(f"{deb.paragraph}\n\n" for deb in debs).encode()


def release(packages: bytes, architecture: str, epoch: int) -> bytes:
    """The repository's ``Release``, which is what gets signed."""
    digest = hashlib.sha256(packages).hexdigest()
    return (
        f"Origin: kOS\nLabel: kOS bundle\nSuite: kos\nCodename: kos\nDate: {formatdate(epoch, usegmt=True)}\n"
        f"Architectures: {architecture}\nDescription: The Debian packages of a kOS bundle\n"
        f"SHA256:\n {digest} {len(packages)} Packages\n"
    ).encode()
