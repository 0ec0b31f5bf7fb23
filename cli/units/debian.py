# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tree of Debian packages with all they depend on, unpacked by an ordinary user and without running any of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...plugins.plugin_utils import apt
from . import tools

_RECORD = Path(__file__).with_name("record.sh")


@dataclass(frozen=True)
class Package:
    """A Debian package in an image, with the SHA-256 of its .deb."""

    name: str
    version: str
    architecture: str
    sha256: str

    @property
    def url(self) -> str:
        """The package as a package URL."""
        return f"pkg:deb/debian/{self.name}@{quote(self.version, safe=':')}?arch={self.architecture}"


@dataclass(frozen=True)
class Unpacked:
    """A tree as a tar, the packages in it, and the packages that each path comes from."""

    tree: Path
    packages: list[Package]
    owners: Mapping[str, set[str]]


def unpack(suite: str, architecture: str, packages: Sequence[str], folder: Path) -> Unpacked:
    """The packages of `suite` with all they depend on; `folder` holds what is made.

    The way to the packages is that of this machine's apt. Raises ToolFailed.
    """
    try:
        way = apt.inherit()
    except apt.NoMirror as error:
        raise tools.ToolFailed(str(error)) from error
    options, sources, tree = folder / "apt.conf", folder / "debian.sources", folder / "tree.tar"
    options.write_text("".join(f"{line}\n" for line in way.options))
    sources.write_text(way.sources(suite))
    # `extract` unpacks and runs nothing, so neither root nor a chroot nor an emulator is needed.
    argv = ["mmdebstrap", "--quiet", "--mode=chrootless", "--variant=extract", f"--architectures={architecture}"]
    argv += [f"--include={','.join(packages)}", f"--aptopt={options}", f'--extract-hook=sh "{_RECORD}" "$1"']
    environ = {**os.environ, "LC_ALL": "C.UTF-8", "KOS_RECORD": str(folder)}
    tools.run([*argv, suite, str(tree), str(sources)], environ)
    listed = [Package(*line.split()) for line in (folder / "packages").read_text().splitlines()]
    return Unpacked(tree, sorted(listed, key=lambda package: package.name), _owners(folder / "paths"))


def _owners(paths: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    with paths.open(encoding="utf-8") as lines:
        for line in lines:
            package, _, path = line.rstrip("\n").partition(" ")
            found.setdefault(path.removeprefix("./").rstrip("/"), set()).add(package)
    return found
