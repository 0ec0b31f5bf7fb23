# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai unit`: build, sign, verify, look at and carry what nodes run in containers."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from ...plugins.plugin_utils import recipes, unit_store
from ...plugins.plugin_utils.assemble import COLLECTION
from ...plugins.plugin_utils.images import Architecture, Image
from .. import options
from ..exits import Exit
from ..view import console, errors, size
from . import build as building
from . import site_lock
from .build import Built
from .tools import ToolFailed

app = typer.Typer(
    help="Build, sign, verify, inspect and carry units: what nodes run in containers.", no_args_is_help=True
)

SITE_LOCK = "KOS_SITE_LOCK"
_ARCHITECTURES: dict[str, Architecture] = {"x86_64": "amd64", "aarch64": "arm64"}
_SERVICES = COLLECTION / "services"

Store = Annotated[
    Path | None,
    typer.Option("--store", envvar=unit_store.VARIABLE, help="The unit store; default: ~/.local/share/kos/units."),
]
Lock = Annotated[
    Path | None, typer.Option("--lock", envvar=SITE_LOCK, help="The site's image lock; default: configs/images.lock.")
]
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
    """Build images from Debian packages into the unit store, without root, and enter them into the site's lock.

    The same packages give the same digest on every machine. No program of a package runs while an image is built.

    Example:

      kai unit build llama_cpp

      kai unit build valkey --arch arm64
    """
    if not names:
        for name in recipes.recipe_names(_SERVICES):
            print(name)
        return
    architecture, kept, entered = _architecture(arch), store or unit_store.store_path(), lock or lock_path()
    built = [_build(name, architecture, kept, entered) for name in names]
    if as_json:
        print(json.dumps([_as_dict(one) for one in built], indent=1))
        return
    for one in built:
        console.print(f"[bold]{one.name}[/] {one.version}, {one.stored.architecture}, {size(one.size)}")
        print(f"  {one.reference}")
    errors.print(f"kept in {kept}; entered into {entered}", style="dim", markup=False)


def lock_path() -> Path:
    """The site's image lock, which need not exist."""
    named = os.environ.get(SITE_LOCK)
    return Path(named) if named else COLLECTION / "configs/images.lock"


def _build(name: str, architecture: Architecture, store: Path, lock: Path) -> Built:
    try:
        with errors.status(f"building {name} for {architecture}"):
            built = building.build(_SERVICES, name, architecture, store)
        recipe = recipes.load_recipe(_SERVICES, name)
        row = Image(
            repository=built.stored.repository,
            tag=built.version,
            digests={architecture: built.stored.digest},
            licence=recipe.licence,
            source=f"built from services/{name}/{recipes.RECIPE} by kai unit build",
        )
        site_lock.enter(lock, name, row)
    except (ToolFailed, unit_store.StoreBroken, OSError) as error:
        raise _refusal(error) from error
    return built


def _as_dict(built: Built) -> dict[str, Any]:
    return {
        "name": built.name,
        "reference": built.reference,
        "architecture": built.stored.architecture,
        "version": built.version,
        "size": built.size,
        "packages": [package.as_dict() for package in built.packages],
    }


def _architecture(given: str | None) -> Architecture:
    found = given or platform.machine()
    if found in _ARCHITECTURES.values():
        return "amd64" if found == "amd64" else "arm64"
    if found in _ARCHITECTURES:
        return _ARCHITECTURES[found]
    raise typer.BadParameter(f"'{found}': known are amd64, arm64", param_hint="--arch")


def _refusal(error: Exception) -> typer.Exit:
    errors.print(str(error), style="red", markup=False)
    return typer.Exit(Exit.UNEXPECTED)
