# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units in the store: ``units/<name>/`` has the files of the newest one, its images are blobs of the store."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from ...plugins.module_utils.node import attestation, trust
from ...plugins.plugin_utils import container_units, unit_store
from ...plugins.plugin_utils.catalogue import Catalogue
from ...plugins.plugin_utils.container_units import Unit
from ...plugins.plugin_utils.images import Image
from ...plugins.plugin_utils.signing import Signer
from ...plugins.plugin_utils.unit_store import StoreBroken


def load(store: Path, name: str) -> Unit | None:
    """The unit of the service `name`, or None."""
    folder = store / "units" / name
    if not folder.is_dir():
        return None
    return Unit({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})


def names(store: Path) -> list[str]:
    """The services of which there is a unit."""
    return sorted(path.name for path in (store / "units").glob("[a-z]*"))


def save(store: Path, unit: Unit) -> None:
    """Keep the unit in place of the one before."""
    folder = store / "units"
    with unit_store.locked(folder):
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        for name, content in unit.files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        old = folder / unit.name
        if old.exists():
            old.rename(new.with_name(f"{new.name}.old"))
        new.rename(old)
        shutil.rmtree(new.with_name(f"{new.name}.old"), ignore_errors=True)


def make(catalogue: Catalogue, name: str, image: Image, store: Path) -> Unit:
    """The unit of a service from the catalogue and the images that the store holds. Raises StoreBroken."""
    held = {row.digest for row in unit_store.images(store)}
    digests = {architecture: digest for architecture in image.digests if (digest := image.digest(architecture)) in held}
    if not digests:
        raise StoreBroken(
            f"the unit store has no image of {name}: kai unit build {name}, or kai unit lock --pull {name}"
        )
    manifests: dict[str, bytes] = {
        architecture: unit_store.read_blob(store, str(digest)) for architecture, digest in digests.items()
    }
    return container_units.of(catalogue, name, image, manifests)


def sign(unit: Unit, signer: Signer, why: str, intent: str, before: Unit | None) -> Unit:
    """The unit with this signer's signature; one that has a statement keeps it, so that several can sign it."""
    public, comment = trust.parse_key(signer.public)
    fingerprint = trust.fingerprint(public)
    if attestation.STATEMENT not in unit.files:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        replaces = before.id if before and before.id != unit.id else None
        who = {"name": comment, "fingerprint": fingerprint}
        unit = container_units.stated(unit, who, now, why, intent, replaces)
    attestation.check_integrity(unit.files)
    signature = signer.sign_content(unit.files[attestation.STATEMENT], attestation.NAMESPACE)
    name = fingerprint.removeprefix("SHA256:").translate(str.maketrans("+/", "-_"))
    return unit.with_files({f"{attestation.SIGNATURES}{name}": signature.encode()})


def enter(unit: Unit, manifests: dict[str, bytes], folder: Path, store: Path) -> None:
    """Move the proved blobs of an archive into the store, and enter the images and the unit."""
    target = store / "blobs/sha256"
    target.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.chmod(0o644)
        path.rename(target / path.name)
    for architecture, manifest in manifests.items():
        unit_store.add_image(store, unit.manifest["images"][architecture]["repository"], manifest, architecture)
    save(store, unit)
