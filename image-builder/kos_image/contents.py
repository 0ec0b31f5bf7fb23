# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of what is on every medium beside its packages: kai, the bundle, the lists of what it is made of, keys."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils import bundles, layers, own_node, signing
from ansible_collections.kind.kos.plugins.plugin_utils.assemble import COLLECTION
from ansible_collections.kind.kos.plugins.plugin_utils.documents import read_document

from . import bundled, python_site, toolbox
from .kit import Kit, code, settings
from .packages import Package
from .stages import Folders, Stage

SITE, DATA = python_site.TREE, "data"
# Where on the disk of a node lies what a stick has in its partition of data.
ON_A_NODE = own_node.MEDIA.lstrip("/")
KEYS = "keys"
_SHARED = "usr/share/kos"


def site(kit: Kit) -> Stage:
    """kai, kos-install and ansible-core, what the medium is, and whom it believes: laid over the root from SITE."""
    below = _wheels(kit)
    signer = signing.signer()
    record = _record(kit)

    def make(folder: Path, made: Folders) -> None:
        python_site.site(kit.box(made), made[below.name], kit.epoch, folder)
        shared = folder / SITE / _SHARED
        _write_key(signer.public, shared / KEYS)
        (shared / "medium.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")

    inputs = {
        "source": kit.source,
        "medium": settings(record),
        "signer": signer.public,
        "date": str(kit.epoch),
        "recipe": settings(python_site.VERSION),
    }
    return Stage("site", "installing kai", make, inputs, (kit.toolbox, below))


def _wheels(kit: Kit) -> Stage:
    def make(folder: Path, made: Folders) -> None:
        python_site.wheels(kit.box(made), kit.medium.architecture, folder)

    inputs = {
        "lock": settings(python_site.LOCK.read_text()),
        "architecture": kit.asked.architecture,
        "recipe": settings(python_site.VERSION),
    }
    return Stage("wheels", "fetching the wheels of kai", make, inputs, (kit.toolbox,))


def data(kit: Kit) -> Stage:
    """Beside the root: the bundle, the list of what all is made of, the package lock, keys; in the folder DATA."""
    below, gathered = _wheels(kit), bundled.stage(kit)
    signer = signing.signer()
    asked = kit.asked
    names = {asked.output, *bundled.sets(asked, kit.generations)}

    def make(folder: Path, made: Folders) -> None:
        # Its library takes as long to read as all the rest of a build in which nothing has changed.
        from . import sbom

        target = folder / DATA
        target.mkdir()
        os.link(made[gathered.name] / bundled.FILE, target / bundled.FILE)
        _write_key(signer.public, target / KEYS)
        lock = kit.lock.only(names)
        lock.write(target / "packages.lock.json")
        shutil.copyfile(python_site.LOCK, target / python_site.LOCK.name)
        materials = json.loads((made[below.name] / python_site.MATERIALS).read_text())
        with bundles.opened(target / bundled.FILE) as opened:
            parts = sbom.bundled(opened.manifest)
        parts += [*sbom.packages([*lock.packages, *_of_toolbox(kit)]), *sbom.wheels(materials)]
        parts.append(sbom.kos(_version(), kit.source))
        text = sbom.document(f"kos-{asked.scope}", _version(), kit.epoch, kit.seed, parts)
        (target / sbom.FILE).write_text(text)

    inputs = {
        "packages": settings(sorted(kit.lock.digest(name) for name in names)),
        "medium": asked.scope,
        "source": kit.source,
        "version": _version(),
        "signer": signer.public,
        "date": str(kit.epoch),
        "recipe": code("contents.py", "sbom.py"),
    }
    return Stage("data", "listing what the medium is made of", make, inputs, (below, gathered))


def _of_toolbox(kit: Kit) -> list[Package]:
    """What is on the medium and comes from none of its own packages: scripts of its initrd, what a BIOS starts."""
    names = {"dracut-core", *(["grub-pc-bin"] if kit.medium.boot.bios else [])}
    return [one for one in kit.tools.of(toolbox.SET) if one.name in names]


def _record(kit: Kit) -> dict[str, Any]:
    """What the console says of the medium before its manifest has been read."""
    asked, request = kit.asked, bundled.request(kit.asked)
    deployment = layers.load_deployment(request.configs, request.name, request.environment, request.site, request.user)
    return {
        "profile": asked.profile,
        "output": asked.output,
        "architecture": asked.architecture,
        "made": kit.epoch,
        "version": _version(),
        "minimum": deployment.minimum.model_dump(mode="json"),
        **({"test": True} if asked.test else {}),
    }


def _version() -> str:
    return str(read_document(COLLECTION / "galaxy.yml").data["version"])


def _write_key(public: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "maker.pub").write_text(f"{public}\n")
