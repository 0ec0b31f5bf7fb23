# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai model`: which language models nodes have, and which one they serve."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from ..plugins.module_utils.node import bundle as sealed
from ..plugins.module_utils.node import trust
from ..plugins.module_utils.node.files import NodeError
from ..plugins.module_utils.node.models import Wanted
from ..plugins.plugin_utils import bundles, signing
from . import options
from .ansible import Target, ask
from .exits import Exit
from .view import console, errors, models_view

app = typer.Typer(
    help="Give nodes language models (GGUF files). Nothing is ever fetched that was not asked for here.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="What the model is called on the nodes.")]


@app.command("list")
def list_(inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False) -> None:
    """List the models that nodes have, and which one answers to the name `default`.

    Example:

      kai model list -i inventories/lab
    """
    _ask(Target(inventory, limit), {}, as_json)


@app.command()
def add(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="A file here, or what the node itself fetches.")],
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="Its sum, as its publisher says.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Take it from this bundle; the argument is its name in there.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What it is called; default: the file's name.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Serve it by the name `default` too.")] = False,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
) -> None:
    """Give nodes a model. It is verified before any service can see it; the first one becomes the default.

    Examples:

      kai model add small.gguf --sha256 9f2c… -i inventories/lab

      kai model add https://models.example.org/small-q4.gguf --sha256 9f2c… --name small --default

      kai model add small --bundle home.kos -i inventories/home
    """
    target = Target(inventory, limit)
    if bundle:
        with tempfile.TemporaryDirectory(prefix="kos-model-") as folder:
            path, found = _from_bundle(bundle, source, Path(folder))
            _add(str(path), sha256 or found, name, default, target, as_json)
        return
    if not sha256:
        raise typer.BadParameter("give its sum: --sha256 HEX, as its publisher says")
    _add(source, sha256, name, default, target, as_json)


def _from_bundle(bundle: Path, name: str, folder: Path) -> tuple[Path, str]:
    """A model of a bundle by this controller, laid out in `folder`, and its SHA-256. Leaves where it is refused."""
    path = folder / f"{name}.gguf"
    try:
        key, comment = trust.parse_key(signing.signer().public)
        with bundles.opened(bundle) as opened, path.open("wb") as stream:
            row = opened.extract(f"{sealed.MODELS}{path.name}", {comment or "this controller": key}, stream)
    except (NodeError, signing.SigningFailed, OSError) as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(Exit.UNEXPECTED) from error
    return path, str(row["sha256"])


def _add(source: str, sha256: str, name: str | None, default: bool, target: Target, as_json: bool) -> None:
    called = name or _named(source)
    try:
        Wanted(called, sha256.lower())
    except NodeError as error:
        raise typer.BadParameter(str(error)) from error
    if "://" not in source and not Path(source).is_file():
        raise typer.BadParameter(f"no file '{source}', and no address either (https://…)")
    given = source if "://" in source else str(Path(source).absolute())
    variables = {"state": "present", "name": called, "source": given, "sha256": sha256.lower(), "default": default}
    _ask(target, variables, as_json)


@app.command()
def remove(
    name: Name, inventory: options.Inventory = None, limit: options.Limit = None, as_json: options.AsJson = False
) -> None:
    """Delete a model from nodes. The default is refused: choose another one first.

    Example:

      kai model remove small -i inventories/lab
    """
    _ask(Target(inventory, limit), {"state": "absent", "name": name}, as_json)


@app.command("default")
def default_(
    name: Annotated[str | None, typer.Argument(help="The model that answers to `default` from now on.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Have no default: programs must name a model.")] = False,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
) -> None:
    """Say which model answers programs that ask for `default`.

    Examples:

      kai model default small -i inventories/lab

      kai model default --none -i inventories/lab
    """
    if none == (name is not None):
        raise typer.BadParameter("give either a name or --none")
    _ask(Target(inventory, limit), {"state": "default", **({"name": name} if name else {})}, as_json)


def _named(source: str) -> str:
    return source.partition("?")[0].rpartition("/")[2].removesuffix(".gguf").lower()


def _ask(target: Target, given: dict[str, Any], as_json: bool) -> None:
    answers, failed = ask(target, "model", {f"kos_model_{key}": value for key, value in given.items()})
    if as_json:
        print(json.dumps({host: answer["models"] for host, answer in answers.items()}, indent=1))
    else:
        for host, answer in answers.items():
            console.print(models_view(host, answer["models"]))
    for host, answer in answers.items():
        for note in answer["notes"]:
            errors.print(f"{host}: {note}", style="yellow", markup=False)
    for sentence in failed:
        errors.print(sentence, style="red", markup=False)
    if failed:
        raise typer.Exit(Exit.UNEXPECTED)
