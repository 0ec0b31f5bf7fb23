# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tree of Debian packages with all they depend on, unpacked by an ordinary user and without running any of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...lab import apt
from ...lab.errors import HostError
from . import tools

# Said by mmdebstrap's own shell, once every package lies in apt's cache.
_RECORD = (
    'for deb in "$1"/var/cache/apt/archives/*.deb; do'
    r' dpkg-deb --show --showformat="\${Package} \${Version} \${Architecture} " "$deb";'
    ' sha256sum <"$deb" | cut -d" " -f1; done'
)


@dataclass(frozen=True)
class Package:
    """A Debian package in an image, with the SHA-256 of its .deb."""

    name: str
    version: str
    architecture: str
    sha256: str

    def as_dict(self) -> dict[str, str]:
        """The package as plain data."""
        return asdict(self)


def unpack(suite: str, architecture: str, packages: Sequence[str], folder: Path) -> tuple[Path, list[Package]]:
    """A tar with the packages of `suite` and what they depend on, and the list of them all.

    The way to the packages is that of this machine's apt. Raises ToolFailed.
    """
    try:
        way = apt.inherit()
    except HostError as error:
        raise tools.ToolFailed(str(error)) from error
    options, sources, record = folder / "apt.conf", folder / "debian.sources", folder / "packages"
    options.write_text("".join(f"{line}\n" for line in way.options))
    sources.write_text(way.sources(suite))
    tree = folder / "tree.tar"
    # `extract` unpacks and runs nothing, so neither root nor a chroot nor an emulator is needed.
    argv = ["mmdebstrap", "--quiet", "--mode=chrootless", "--variant=extract", f"--architectures={architecture}"]
    argv += [f"--include={','.join(packages)}", f"--aptopt={options}"]
    argv += [f"--extract-hook={{ {_RECORD}; }} >'{record}'"]
    tools.run([*argv, suite, str(tree), str(sources)], {**os.environ, "LC_ALL": "C.UTF-8"})
    return tree, [Package(*line.split()) for line in sorted(record.read_text().splitlines())]
