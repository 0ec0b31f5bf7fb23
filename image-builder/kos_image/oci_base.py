# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of kOS's container images as an OCI archive: what every image starts from, of locked packages.

What a recipe adds is added by `kai unit build`; this is what a person's own image can be FROM.
"""

from __future__ import annotations

import shlex
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

from ansible_collections.kind.kos.cli.units import debian
from ansible_collections.kind.kos.plugins.plugin_utils import oci, recipes, unit_store
from ansible_collections.kind.kos.plugins.plugin_utils.assemble import COLLECTION
from ansible_collections.kind.kos.plugins.plugin_utils.images import BUILT
from ansible_collections.kind.kos.plugins.plugin_utils.oci import Entry
from ansible_collections.kind.kos.plugins.plugin_utils.recipes import ImageBase

from .packages import Package
from .toolbox import Toolbox

SET = "oci"  # of the lock
NAME = "base"
VERSION = 1  # of the recipe below: an input of the stage
# Beside what every image of a service starts from: what a program of one's own most often needs.
PACKAGES = ("base-files", "ca-certificates", "libc6", "libgcc-s1", "libssl3t64", "libstdc++6", "netbase", "tzdata")
_AUTHORITIES = "usr/share/ca-certificates/mozilla/"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def base() -> ImageBase:
    """What every image starts from. Raises ConfigurationError."""
    return recipes.load_base(COLLECTION / "services")


def sets(output: str) -> dict[str, list[str]]:
    """What the lock holds for this output beside media, by the name of its set."""
    return {SET: sorted({*PACKAGES, *base().packages})} if output == SET else {}


def write(box: Toolbox, locked: Sequence[Package], architecture: str, debs: Path, target: Path) -> str:
    """Write the image as an OCI archive, and return its digest; `debs` has the package files. Raises ImageError.

    Packages are unpacked and nothing of them runs, so any architecture is made alike.
    """
    start = base()
    kept = [package for package in locked if package.name not in start.without]
    with tempfile.TemporaryDirectory(dir=target.parent) as name, ExitStack() as opened:
        store, trees = Path(name) / "store", Path(name) / "trees"
        _unpack(box, kept, debs, trees)
        archives = [opened.enter_context(tarfile.open(path)) for path in sorted(trees.iterdir())]
        theirs = [entry for archive in archives for entry in oci.entries_of(archive)]
        own = [oci.file_entry(one.path, (one.content or "").encode(), int(one.mode, 8)) for one in start.files]
        own.append(oci.file_entry(_CERTIFICATES, _certificates(theirs)))
        with unit_store.new_blob(store) as stream:
            layer = oci.write_layer([*oci.left(theirs, start.leave_out), *own], box.epoch, stream)
        run = {"Env": [f"SSL_CERT_FILE={_CERTIFICATES}", "PATH=/usr/local/bin:/usr/bin:/usr/sbin", "LANG=C.UTF-8"]}
        config = oci.configuration(architecture, layer, box.epoch, run, "kos-image build --output oci")
        unit_store.put_blob(store, config)
        labels = {"org.opencontainers.image.title": NAME, oci.MATERIALS: oci.canonical(_materials(kept)).decode()}
        stored = unit_store.add_image(store, f"{BUILT}/{NAME}", oci.manifest(config, layer, labels), architecture)
        _pack(store, box.epoch, target)
    return stored.digest


def _unpack(box: Toolbox, packages: Sequence[Package], debs: Path, trees: Path) -> None:
    trees.mkdir()
    files = " ".join(shlex.quote(one.file) for one in packages)
    script = f'for deb in {files}; do dpkg-deb --fsys-tarfile "/build/debs/$deb" >"/build/trees/$deb.tar"; done'
    box.run(["sh", "-euc", script], {"debs": debs, "trees": trees})


def _certificates(entries: Sequence[Entry]) -> bytes:
    """What update-ca-certificates would write: every authority that Mozilla trusts, one after the other."""
    found = (entry for entry in entries if entry.content and entry.info.name.startswith(_AUTHORITIES))
    parts = []
    for entry in sorted(found, key=lambda entry: entry.info.name):
        with cast("Callable[[], IO[bytes]]", entry.content)() as stream:
            parts.append(stream.read())
    return b"".join(parts)


def _materials(packages: Sequence[Package]) -> dict[str, str]:
    return {debian.Package(one.name, one.version, one.architecture, one.sha256).url: one.sha256 for one in packages}


def _pack(store: Path, epoch: int, target: Path) -> None:
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(path for path in store.rglob("*") if path.is_file()):
            info = tarfile.TarInfo(path.relative_to(store).as_posix())
            info.size, info.mtime, info.mode = path.stat().st_size, epoch, 0o644
            with path.open("rb") as stream:
                tar.addfile(info, stream)
