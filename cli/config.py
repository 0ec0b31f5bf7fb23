# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai config`: what is set, by which line, and how to change it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..plugins.plugin_utils import layers
from ..plugins.plugin_utils.documents import typed
from ..plugins.plugin_utils.faults import ConfigurationError, Fault, nearest
from ..plugins.plugin_utils.layers import Contribution, Deployment
from ..plugins.plugin_utils.models import known_keys
from ..plugins.plugin_utils.profile import Profile
from ..plugins.plugin_utils.syntax import KeyPath
from . import options
from .editing import changed, replace
from .view import console, errors

app = typer.Typer(help="Explain, show and change the configuration.", no_args_is_help=True)

Required = Annotated[
    str,
    typer.Option("--profile", "-p", envvar="KOS_PROFILE", help="The profile or mode whose layers are merged."),
]


@app.command()
def explain(
    key: Annotated[str, typer.Argument(help="A key with dots, such as services.vector_db.")],
    profile: Required,
    environment: options.Environment = None,
    site: options.Site = None,
    user: options.User = None,
    configs: options.Configs = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what a key is, which line set it, and what that line overrode.

    Examples:

      kai config explain services.vector_db --profile personal_node

      kai config explain logging.level --profile personal_node --env production
    """
    deployment = _deployment(profile, environment, site, user, configs)
    path = _path(key)
    _refuse_unknown(path)
    said = layers.explain(deployment, path)
    value = _value(deployment.settings, path)
    if as_json:
        rows = [_row(contribution, index, said) for index, contribution in enumerate(said)]
        print(json.dumps({"key": key, "value": value, "layers": rows[::-1]}, indent=1))
        return
    console.print(Text.assemble((key, "bold"), " is ", (_shown(value), "green") if said else ("not set", "yellow")))
    table = Table(box=None, pad_edge=False, show_header=False)
    for _column in range(5):
        table.add_column(overflow="fold")
    for index, contribution in reversed(list(enumerate(said))):
        row = _row(contribution, index, said)
        style = "dim" if row["overridden"] else ""
        note = "overridden" if row["overridden"] else ""
        table.add_row(
            contribution.kind, contribution.verb, _shown(contribution.value), str(contribution.place), note, style=style
        )
    if said:
        console.print(table)


@app.command()
def show(
    profile: Required,
    environment: options.Environment = None,
    site: options.Site = None,
    user: options.User = None,
    configs: options.Configs = None,
    origins: Annotated[bool, typer.Option("--origins", help="Name the line that set each value.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Print the merged configuration, as YAML or JSON.

    Examples:

      kai config show --profile personal_node --origins

      kai config show --profile server --site lab --json
    """
    deployment = _deployment(profile, environment, site, user, configs)
    if as_json:
        document: dict[str, Any] = deployment.settings
        if origins:
            leaves = _leaves(deployment.settings)
            places = {".".join(map(str, path)): str(deployment.place(path)) for path, _value in leaves}
            document = {"settings": deployment.settings, "origins": places}
        print(json.dumps(document, indent=1))
        return
    lines = list(_lines(deployment.settings, (), deployment))
    width = min(60, max(len(text) for text, _place in lines))
    for text, place in lines:
        note = Text(f"  # {place}", style="dim") if origins and place else Text()
        console.print(Text(text.ljust(width) if note else text) + note, soft_wrap=True)


@app.command("set")
def set_(
    key: Annotated[str, typer.Argument(help="A key with dots; a + at its end appends to a list.")],
    value: Annotated[str, typer.Argument(help="A word, number, true, false, null (unset), or a list: [a, b].")],
    layer: Annotated[str, typer.Option("--layer", help="Which layer is written: user or site.")] = "user",
    profile: options.Profile = None,
    environment: options.Environment = None,
    site: options.Site = None,
    user: options.User = None,
    configs: options.Configs = None,
    as_json: options.AsJson = False,
) -> None:
    """Set a key in the user (or site) layer. Comments stay; what would not be valid is refused and nothing is written.

    With --profile the whole deployment is checked with the change, without it the layer by itself.

    Examples:

      kai config set logging.level debug

      kai config set services.monitoring+ grafana --layer site

      kai config set services.vector_db pgvector --profile personal_node
    """
    if layer not in ("user", "site"):
        raise typer.BadParameter(f"--layer is user or site, not {layer}")
    folder = options.tree(configs)
    given = options.layer_path(user if layer == "user" else site, f"--{layer}", folder)
    path = (given or layers.override_path(folder, layer)).resolve()
    keys, meant = _path(key), typed(value, "the value")
    text = changed(path, keys, meant)

    def check(candidate: Path) -> None:
        """Refuse what would not be valid, as the file it is about to be."""
        layers.validate_file(candidate)
        if profile:
            layer_paths = {"site": site, "user": user, layer: str(candidate)}
            request = options.request(profile, environment, layer_paths["site"], layer_paths["user"], configs)
            layers.load_deployment(request.configs, request.name, environment, request.site, request.user)

    replace(path, text, check)
    if as_json:
        print(json.dumps({"file": str(path), "key": key, "value": meant}, indent=1))
    else:
        errors.print(f"{key} is {_shown(meant)} in {path}", markup=False, style="green")


def _deployment(
    profile: str, environment: str | None, site: str | None, user: str | None, configs: Path | None
) -> Deployment:
    request = options.request(profile, environment, site, user, configs)
    return layers.load_deployment(request.configs, request.name, request.environment, request.site, request.user)


def _path(key: str) -> tuple[str, ...]:
    keys = tuple(key.split("."))
    if not all(re.fullmatch(r"[A-Za-z0-9_-]+\+?", part) for part in keys) or any("+" in part for part in keys[:-1]):
        raise typer.BadParameter(f"'{key}' is no key: write words with dots, such as services.vector_db")
    return keys


def _refuse_unknown(path: tuple[str, ...]) -> None:
    """Raise ConfigurationError for a key that no layer may hold."""
    for depth, part in enumerate(path):
        known = known_keys(Profile, path[:depth])
        if known and part not in known:
            raise ConfigurationError([Fault("unknown key", key=".".join(path), fix=nearest(part, known))])


def _value(settings: dict[str, Any], path: KeyPath) -> Any:
    value: Any = settings
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _row(contribution: Contribution, index: int, said: list[Contribution]) -> dict[str, Any]:
    later = said[index + 1 :]
    overridden = any(other.verb != "appends" and not _merges(contribution, other) for other in later)
    place = contribution.place
    return {
        "layer": contribution.kind,
        "verb": contribution.verb,
        "value": contribution.value,
        "file": place.file,
        "line": place.line,
        "overridden": overridden,
    }


def _merges(lower: Contribution, upper: Contribution) -> bool:
    return isinstance(lower.value, dict) and isinstance(upper.value, dict)


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _leaves(value: Any, path: KeyPath = ()) -> list[tuple[KeyPath, Any]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for index, inner in enumerate(value) for leaf in _leaves(inner, (*path, index))]
    return [(path, value)]


def _lines(value: Any, path: KeyPath, deployment: Deployment) -> Any:
    """The YAML lines of `value`, each with the place that set it (None for a mapping)."""
    indent = "  " * len(path)
    if isinstance(value, dict):
        for key, inner in value.items():
            here = (*path, key)
            if isinstance(inner, dict | list) and inner:
                yield f"{indent}{key}:", None
                yield from _lines(inner, here, deployment)
            else:
                yield f"{indent}{key}: {_scalar(inner)}", deployment.place(here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield f"{indent}- {_scalar(item)}", deployment.place((*path, index))


def _scalar(value: Any) -> str:
    """One value as YAML reads it back."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*|[0-9]+[smhdy]", value):
        words = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
        if value.lower() not in words:
            return value
    return json.dumps(value, ensure_ascii=False)
