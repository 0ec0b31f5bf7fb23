# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian packages of a bundle, with all they depend on, as apt resolves and proves them; and their repository.

They are resolved against an empty system: a node may have any of them, or none, in any version.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

from ...plugins.plugin_utils import apt
from ...plugins.plugin_utils.unit_store import locked
from ..units import tools

SUITE = "trixie"
_APT = ["apt-get", "-qq", "-y"]
# apt's own words for "nothing": without them it would read this machine's.
_APART = """
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::sourcelist "{folder}/debian.sources";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
"""
_STANZA_END = re.compile(r"\n{2,}")


@dataclass(frozen=True)
class Deb:
    """A package file: its name in a repository, its paragraph of Debian's signed index, and where it lies now."""

    filename: str
    paragraph: str
    path: Path

    @property
    def sha256(self) -> str:
        """Its digest, as Debian's signed index has it."""
        return _field(self.paragraph, "SHA256")


def fetch(together: Sequence[Collection[str]], architecture: str, cache: Path) -> list[Deb]:
    """The packages and what they need, fetched into `cache` where they are not there yet. Raises ToolFailed.

    Each of `together` is a set that one machine installs. The way to them is that of this machine's apt, which proves
    each by the index that Debian signed.
    """
    if not together:
        return []
    folder = cache / architecture
    with locked(folder):
        environ = _environment(folder, architecture)
        tools.run([*_APT, "update"], environ)
        named: dict[tuple[str, str], None] = {}
        for packages in together:
            wanted = ["install", *sorted(packages)]
            tools.run([*_APT, "--download-only", *wanted], environ)
            # As if nothing had been fetched, so that everything is named.
            elsewhere = ["-o", f"Dir::Cache::archives={folder}/none"]
            named |= dict.fromkeys(_named(tools.run([*_APT, *elsewhere, "--print-uris", *wanted], environ)))
        tools.run([*_APT, "autoclean"], environ)
        shown = tools.run(["apt-cache", "show", *(f"{name}={version}" for name, version in named)], environ)
    files = {path.name: path for path in (folder / "archives").glob("*.deb")}
    found = {(_field(text, "Package"), _field(text, "Version")): text for text in _paragraphs(shown)}
    return sorted((_deb(found[row], files) for row in named), key=lambda deb: deb.filename)


def _environment(folder: Path, architecture: str) -> dict[str, str]:
    """Where apt looks and writes: in `folder` alone."""
    try:
        way = apt.inherit()
    except apt.NoMirror as error:
        raise tools.ToolFailed(str(error)) from error
    for name in ("lists/partial", "archives/partial", "none/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text("")
    (folder / "debian.sources").write_text(way.sources(SUITE))
    lines = [*way.options, _APART.format(folder=folder, architecture=architecture)]
    (folder / "apt.conf").write_text("\n".join(lines))
    return {**os.environ, "LC_ALL": "C.UTF-8", "APT_CONFIG": str(folder / "apt.conf")}


def _named(uris: str) -> Iterator[tuple[str, str]]:
    """Name and version of each package file of `apt-get --print-uris`."""
    for line in uris.splitlines():
        name, version, _architecture = line.split(" ")[1].rsplit("_", 2)
        yield name, unquote(version)


def _paragraphs(text: str) -> list[str]:
    return [part.strip("\n") for part in _STANZA_END.split(text) if part.strip()]


def _deb(paragraph: str, files: dict[str, Path]) -> Deb:
    name, version, architecture = (_field(paragraph, key) for key in ("Package", "Version", "Architecture"))
    cached = f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
    if cached not in files:
        raise tools.ToolFailed(f"apt did not fetch {cached}: run again")
    return Deb(unquote(_field(paragraph, "Filename")), paragraph, files[cached])


def _field(paragraph: str, key: str) -> str:
    match = re.search(rf"^{key}: (.*)$", paragraph, re.MULTILINE)
    if match is None:
        raise tools.ToolFailed(f"apt's index names no {key} in: {paragraph[:60]}")
    return match[1]


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
