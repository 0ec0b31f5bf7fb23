# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage `bundle`: what the nodes of a profile would fetch, of locked packages, as `kai bundle build` writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from ansible_collections.kind.kos.cli import options
from ansible_collections.kind.kos.cli.bundles import build as building
from ansible_collections.kind.kos.cli.bundles.build import Wanted
from ansible_collections.kind.kos.cli.bundles.debs import Deb
from ansible_collections.kind.kos.cli.units.tools import ToolFailed
from ansible_collections.kind.kos.plugins.plugin_utils import bundles, signing, unit_store
from ansible_collections.kind.kos.plugins.plugin_utils.assemble import Request

from . import packages
from .asked import Asked
from .errors import Refused
from .kit import Kit, files, settings
from .packages import Lock, Package
from .stages import Folders, Stage

FILE = "bundle.kos"


def request(asked: Asked) -> Request:
    """The profile with its layers. Raises ConfigurationError."""
    given = asked.layers
    configs = given.get("configs")
    folder = Path(configs) if configs else None
    return options.request(asked.profile, given.get("env"), given.get("site"), given.get("user"), folder)


def wanted(asked: Asked) -> list[Wanted]:
    """The generations of the profile for any machine of the architecture. Raises ConfigurationError."""
    return building.planned(request(asked), building.any_machine(asked.architecture))


def sets(asked: Asked, generations: Iterable[Wanted]) -> dict[str, list[str]]:
    """What is installed together, by the name of its set in the lock."""
    together = building.packages(generations)
    return {f"{asked.profile} {number}": sorted(names) for number, names in enumerate(together, 1)}


def stage(kit: Kit) -> Stage:
    """The bundle of the profile. Raises SigningFailed."""
    signer, store = signing.signer(), unit_store.store_path()
    names = sets(kit.asked, kit.generations)

    def make(folder: Path, _made: Folders) -> None:
        debs = _debs(kit, names)
        try:
            building.build(kit.generations, debs, kit.asked.models, folder / FILE, store, signer, kit.epoch)
        except (ToolFailed, unit_store.StoreBroken) as error:
            raise Refused(str(error)) from error

    inputs = {
        "generations": settings([one.id for one in kit.generations]),
        "packages": settings([kit.lock.digest(name) for name in names]),
        "models": settings([[path.name, _digest(path)] for path in kit.asked.models]),
        "signer": signer.public,
        "date": str(kit.epoch),
        "recipe": settings(files(Path(building.__file__).parent), Path(bundles.__file__).read_text()),
    }
    return Stage("bundle", "gathering what the profile installs", make, inputs)


def _debs(kit: Kit, names: Mapping[str, list[str]]) -> list[Deb]:
    rows = _all(kit.lock, names)
    folder = kit.debs(rows)
    debs = (Deb(one.filename, packages.paragraph(one, folder, one.filename), folder / one.file) for one in rows)
    return sorted(debs, key=lambda deb: deb.filename)


def _all(lock: Lock, names: Iterable[str]) -> list[Package]:
    return sorted({package for name in names for package in lock.of(name)})


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
