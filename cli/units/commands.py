# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai unit`: build, sign, verify, look at and carry what nodes run in containers."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ...plugins.module_utils.node import attestation
from ...plugins.module_utils.node.files import NodeError
from ...plugins.plugin_utils import container_units, oci, recipes, signing, unit_store
from ...plugins.plugin_utils.assemble import COLLECTION
from ...plugins.plugin_utils.assemble import site_lock as site_lock_path
from ...plugins.plugin_utils.catalogue import IMAGE_LOCK, load_catalogue
from ...plugins.plugin_utils.container_units import Unit
from ...plugins.plugin_utils.documents import read_text
from ...plugins.plugin_utils.faults import ConfigurationError, Fault, Place, nearest
from ...plugins.plugin_utils.images import BUILT, Architecture, Image, load_images
from ...plugins.plugin_utils.models import parse
from .. import options
from ..exits import Exit
from ..view import console, counted, errors, size
from . import archive, keeping, registry, site_lock
from . import build as building
from .build import Built
from .tools import ToolFailed
from .views import unit_store_view, unit_view

app = typer.Typer(
    help="Build, sign, verify, inspect and carry units: what nodes run in containers.", no_args_is_help=True
)

_ARCHITECTURES: dict[str, Architecture] = {"x86_64": "amd64", "aarch64": "arm64"}
_SERVICES = COLLECTION / "services"

Store = Annotated[
    Path | None,
    typer.Option("--store", envvar=unit_store.VARIABLE, help="The unit store; default: ~/.local/share/kos/units."),
]
Lock = Annotated[
    Path | None,
    typer.Option("--lock", envvar="KOS_SITE_LOCK", help="The site's image lock; default: configs/images.lock."),
]
Trusted = Annotated[
    Path | None,
    typer.Option("--trusted", envvar="KOS_UNIT_TRUST", help="Who may sign; default: configs/unit_trust.yaml."),
]
Http = Annotated[bool, typer.Option("--http", help="The registry speaks plain HTTP: for one on this machine.")]
Arch = Annotated[str | None, typer.Option("--arch", help="amd64 or arm64; default: this machine's.")]


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(help="Images with a recipe in services/; none: list them.")
    ] = None,
    arch: Arch = None,
    store: Store = None,
    lock: Lock = None,
    as_json: options.AsJson = False,
) -> None:
    """Build images from Debian packages and PyPI into the unit store, without root; the site's lock then names them.

    The same packages give the same digest on every machine. No program of a package runs while an image is built.

    Example:

      kai unit build llama_cpp

      kai unit build valkey --arch arm64
    """
    if not names:
        for name in recipes.recipe_names(_SERVICES):
            print(name)
        return
    architecture, kept, entered = architecture_of(arch), store or unit_store.store_path(), lock or lock_path()
    built = [_build(name, architecture, kept, entered) for name in names]
    if as_json:
        print(json.dumps([_as_dict(one) for one in built], indent=1))
        return
    for one in built:
        console.print(f"[bold]{one.name}[/] {one.version}, {one.stored.architecture}, {size(one.size)}")
        print(f"  {one.reference}")
    errors.print(f"kept in {kept}; entered into {entered}", style="dim", markup=False)


@app.command()
def sign(
    unit: Annotated[str, typer.Argument(help="A service whose image is built or pulled, or a unit archive.")],
    why: Annotated[str, typer.Option("--why", help="Why this unit is made; stands in its chain of custody.")] = "",
    intent: Annotated[
        str, typer.Option("--intent", help="What the update is for: install, security, improvement or rollback.")
    ] = "install",
    store: Store = None,
    lock: Lock = None,
) -> None:
    """Make the unit of a service and sign it with this controller's key, or add a signature to a unit archive.

    A unit is the manifest, the templates and the images of a service under one content address (SHA3-256). What is
    signed is an in-toto statement: who built it from what, when, why, and what it replaces.

    Examples:

      kai unit sign valkey --why "CVE-2026-0001" --intent security

      kai unit sign valkey.kosunit
    """
    if intent not in container_units.INTENTS:
        raise typer.BadParameter(f"'{intent}': one of {', '.join(container_units.INTENTS)}", param_hint="--intent")
    kept = store or unit_store.store_path()
    with _sentences():
        signer = signing.signer()
        if unit.endswith(archive.SUFFIX):
            signed = _sign_archive(Path(unit), kept, signer)
        else:
            signed = _sign_service(unit, kept, lock or lock_path(), signer, why, intent)
    count = sum(name.startswith(attestation.SIGNATURES) for name in signed.files)
    console.print(f"[bold]{signed.name}[/] {signed.id[:16]}…, {counted(count, 'signature')}")


@app.command()
def verify(
    unit: Annotated[str, typer.Argument(help="A service whose unit is in the store, or a unit archive.")],
    store: Store = None,
    trusted: Trusted = None,
    as_json: options.AsJson = False,
) -> None:
    """Check a unit: its files, its images, its statement, and that enough trusted signers vouch for it.

    How many it needs follows from its trust tier (services/unit_trust.yaml); whose signatures count stands in
    configs/unit_trust.yaml. Without that file, this controller's own.

    Example:

      kai unit verify valkey
    """
    kept = store or unit_store.store_path()
    with _sentences(), _opened(unit, kept) as found:
        by = _verified(found, trusted)
        if not unit.endswith(archive.SUFFIX):
            for manifest in archive.manifests(found).values():
                unit_store.verify_image(kept, oci.digest(manifest))
    if as_json:
        print(json.dumps({"name": found.name, "id": found.id, "signed_by": by}, indent=1))
    else:
        console.print(f"[bold]{found.name}[/] {found.id[:16]}… is whole, signed by {', '.join(by)}")


@app.command()
def inspect(
    unit: Annotated[str | None, typer.Argument(help="A service, or a unit archive; none: list the store.")] = None,
    store: Store = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a unit is: its images, who made it from what and why, and who signed it. Nothing is checked.

    Examples:

      kai unit inspect

      kai unit inspect valkey.kosunit --json
    """
    kept = store or unit_store.store_path()
    with _sentences():
        if unit is None:
            _list(kept, as_json)
            return
        with _opened(unit, kept) as found:
            shown = _described(found)
    if as_json:
        print(json.dumps(shown, indent=1))
    else:
        console.print(unit_view(shown))


@app.command("lock")
def lock_(
    names: Annotated[list[str], typer.Argument(help="Images of the lock, such as qdrant.")],
    repository: Annotated[str | None, typer.Option("--from", help="Another registry/name, such as a mirror's.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Another tag than the lock's.")] = None,
    pull: Annotated[bool, typer.Option("--pull", help="Fetch the images into the unit store, too.")] = False,
    key: Annotated[
        Path | None, typer.Option("--key", help="Public key of their cosign signature: from then on nodes want it.")
    ] = None,
    http: Http = False,
    store: Store = None,
    lock: Lock = None,
) -> None:
    """Ask registries for the digests of images, and write them into the site's lock. Needs a network.

    From then on a plan may choose their services, and a deploy takes exactly these images.

    Examples:

      kai unit lock qdrant grafana

      kai unit lock qdrant --pull

      kai unit lock valkey --from registry.example.org/kos/valkey --tag 8.1.1-amd64 --key cosign.pub
    """
    kept, entered = store or unit_store.store_path(), lock or lock_path()
    known = load_images(_SERVICES / IMAGE_LOCK, entered)
    _refuse_strangers(names, known)
    for name in names:
        encoded = base64.b64encode(read_text(key).encode()).decode() if key else None
        row = _changed(known[name], repository=repository, tag=tag, key=encoded)
        with _sentences():
            if row.repository.startswith(f"{BUILT}/"):
                raise ToolFailed(f"{name} is built here, not fetched: kai unit build {name}")
            with errors.status(f"asking for {row.repository}:{row.tag}"):
                row = _changed(row, digests=registry.resolve(name, row, http))
            if row.key:
                for architecture in row.digests:
                    registry.verify(row.reference(architecture), row.key, http)
            site_lock.enter(entered, name, row)
            for architecture, digest in row.digests.items():
                print(f"{name} {architecture} {row.repository}@{digest}")
                if pull:
                    with errors.status(f"fetching {name} for {architecture}"):
                        registry.pull(name, row, architecture, kept, http)
    errors.print(f"entered into {entered}", style="dim", markup=False)


@app.command()
def push(
    name: Annotated[str, typer.Argument(help="An image that was built here.")],
    repository: Annotated[str, typer.Argument(help="Where to: registry/name.")],
    http: Http = False,
    store: Store = None,
    lock: Lock = None,
) -> None:
    """Push a built image to a registry of yours, sign it there with cosign, and have the site's lock name it.

    Nodes that fetch it from there take it only with that signature; what a controller or a bundle brings along is
    proved by its digest in the signed generation instead. The key pair is made on first use, beside the
    signing key.

    Example:

      kai unit push valkey registry.example.org/kos/valkey
    """
    kept, entered = store or unit_store.store_path(), lock or lock_path()
    known = load_images(_SERVICES / IMAGE_LOCK, entered)
    _refuse_strangers([name], known)
    with _sentences():
        source = known[name]
        digests = {arch: digest for arch in source.digests if (digest := source.digest(arch))}
        if not source.repository.startswith(f"{BUILT}/") or not digests:
            raise ToolFailed(f"{name} was not built here: kai unit build {name}")
        tag = (source.tag or "latest").translate(str.maketrans(":+~", "___"))
        key = registry.cosign_key()
        target = _changed(source, repository=repository, tag=tag, key=key.encoded, digests=digests)
        with errors.status(f"pushing {name} to {repository}"):
            registry.push(name, source.repository, target, kept, http)
            for architecture in target.digests:
                registry.sign(target.reference(architecture), key, http)
        site_lock.enter(entered, name, target)
    for architecture in target.digests:
        print(target.reference(architecture))


@app.command("export")
def export_(
    unit: Annotated[str, typer.Argument(help="A service whose unit is in the store.")],
    target: Annotated[Path | None, typer.Argument(help="The archive; default: NAME.kosunit here.")] = None,
    store: Store = None,
) -> None:
    """Write a unit with its images and signatures as one file, to carry it where there is no network.

    Example:

      kai unit export valkey /media/stick/valkey.kosunit
    """
    kept = store or unit_store.store_path()
    path = target or Path(f"{unit}{archive.SUFFIX}")
    if path.suffix != archive.SUFFIX:
        raise typer.BadParameter(f"the name of a unit archive ends in {archive.SUFFIX}", param_hint="target")
    with _sentences(), _opened(unit, kept) as found:
        written = archive.write(found, kept, path)
    console.print(f"{path}: [bold]{found.name}[/] {found.id[:16]}…, {size(written)}")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A unit archive.", exists=True, dir_okay=False)],
    store: Store = None,
    lock: Lock = None,
    trusted: Trusted = None,
) -> None:
    """Take a unit archive into the store and the site's lock, once it is whole and enough trusted signers vouch for it.

    Nothing is kept of one that is refused.

    Example:

      kai unit import valkey.kosunit
    """
    kept = store or unit_store.store_path()
    with _sentences(), archive.opened(path, kept) as opened:
        unit = opened.unit
        by, manifests = _verified(unit, trusted), archive.manifests(unit)
        keeping.enter(unit, manifests, opened.folder, kept)
        site_lock.enter(lock or lock_path(), container_units.image_name(unit), container_units.image(unit))
    console.print(f"[bold]{unit.name}[/] {unit.id[:16]}… is in the store, signed by {', '.join(by)}")


def _sign_service(name: str, store: Path, lock: Path, signer: signing.Signer, why: str, intent: str) -> Unit:
    catalogue = load_catalogue(_SERVICES, lock)
    image = catalogue.services[name].image if name in catalogue.services else None
    if image is None:
        containers = [known for known, service in catalogue.services.items() if service.image]
        raise ConfigurationError([Fault(f"no service '{name}' runs in a container", fix=nearest(name, containers))])
    before = keeping.load(store, name)
    made = keeping.make(catalogue, name, catalogue.images[image], store)
    if before is not None and before.id == made.id:
        made = before
    signed = keeping.sign(made, signer, why, intent, before)
    keeping.save(store, signed)
    return signed


def _sign_archive(path: Path, store: Path, signer: signing.Signer) -> Unit:
    with archive.opened(path, store) as opened:
        signed = keeping.sign(opened.unit, signer, "", "install", None)
        blobs = opened.folder / "blobs"
        blobs.mkdir()
        (blobs / "sha256").symlink_to("..")
        archive.write(signed, opened.folder, path)
    return signed


@contextmanager
def _opened(unit: str, store: Path) -> Iterator[Unit]:
    """A unit of the store by its service, or one in an archive. Raises UnitRefused."""
    if unit.endswith(archive.SUFFIX):
        with archive.opened(Path(unit), store) as opened:
            yield opened.unit
        return
    found = keeping.load(store, unit)
    if found is None:
        raise attestation.UnitRefused(
            f"the store has no unit of '{unit}': kai unit sign {unit}, or kai unit import FILE"
        )
    yield found


def _verified(unit: Unit, trusted: Path | None) -> list[str]:
    """The trusted signers of the unit. Raises UnitRefused."""
    path = trusted or COLLECTION / "configs" / container_units.TRUST
    known = container_units.load_trust(_SERVICES, path, signing.signer().public)
    archive.manifests(unit)
    services = load_catalogue(_SERVICES).services
    tiers = [str(unit.manifest.get("trust")), *([services[unit.name].trust] if unit.name in services else [])]
    return container_units.verify(unit, known, tiers)


def _described(unit: Unit) -> dict[str, Any]:
    """What a unit is and who says so, as plain data."""
    signatures = sorted(name.partition("/")[2] for name in unit.files if name.startswith(attestation.SIGNATURES))
    return {
        "id": unit.id,
        **unit.manifest,
        "custody": container_units.custody(unit),
        "signatures": [f"SHA256:{name.translate(str.maketrans('-_', '+/'))}" for name in signatures],
        "materials": container_units.materials(unit),
        "files": sorted(name for name in unit.files if not name.startswith(attestation.SIGNATURES)),
    }


def _list(store: Path, as_json: bool) -> None:
    units = [_described(unit) for name in keeping.names(store) if (unit := keeping.load(store, name))]
    images = [row.__dict__ for row in unit_store.images(store)]
    if as_json:
        print(json.dumps({"units": units, "images": images}, indent=1))
    else:
        console.print(unit_store_view(units, images))


def _changed(row: Image, **changes: Any) -> Image:
    """The row with what was given on the command line. Raises ConfigurationError for what cannot be in a lock."""
    data = {**row.model_dump(), **{key: value for key, value in changes.items() if value}}
    return parse(Image, data, lambda _path: Place("command line"))


def _refuse_strangers(names: list[str], known: Mapping[str, Image]) -> None:
    faults = [Fault(f"no image is called '{name}'", fix=nearest(name, known)) for name in names if name not in known]
    if faults:
        raise ConfigurationError(faults)


@contextmanager
def _sentences() -> Iterator[None]:
    """Every expected failure as one sentence and an exit code."""
    try:
        yield
    except attestation.UnitRefused as error:
        errors.print(f"refused: {error}", style="red", markup=False)
        raise typer.Exit(Exit.UNEXPECTED) from error
    except (ToolFailed, NodeError, unit_store.StoreBroken, signing.SigningFailed, OSError) as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(Exit.UNEXPECTED) from error


def lock_path() -> Path:
    """The site's image lock, which need not exist."""
    return site_lock_path(COLLECTION / "configs")


def _build(name: str, architecture: Architecture, store: Path, lock: Path) -> Built:
    with _sentences():
        with errors.status(f"building {name} for {architecture}"):
            built = building.build(_SERVICES, name, architecture, store)
        row = Image(
            repository=built.stored.repository,
            tag=built.version,
            digests={architecture: built.stored.digest},
            licence=recipes.load_recipe(_SERVICES, name).licence,
            source=f"built from services/{name}/{recipes.RECIPE} by kai unit build",
        )
        site_lock.enter(lock, name, row)
    return built


def _as_dict(built: Built) -> dict[str, Any]:
    return {
        "name": built.name,
        "reference": built.reference,
        "architecture": built.stored.architecture,
        "version": built.version,
        "size": built.size,
        "materials": built.materials,
    }


def architecture_of(given: str | None) -> Architecture:
    """The architecture that was named, or this machine's. Raises typer.BadParameter."""
    found = given or platform.machine()
    if found in _ARCHITECTURES.values():
        return "amd64" if found == "amd64" else "arm64"
    if found in _ARCHITECTURES:
        return _ARCHITECTURES[found]
    raise typer.BadParameter(f"'{found}': known are amd64, arm64", param_hint="--arch")
