# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base profile, mode, environment, site and user layers merged into one deployment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .documents import SUFFIXES, Document, KeyPath, dotted, one_of, read_document, read_text
from .environments import parse_environment
from .faults import ConfigurationError, Fault, Place, nearest, shown_path
from .images import load_images
from .merging import Origins, merge, place_in
from .models import parse
from .profile import Feature, Minimum, Mode, Profile, Requirements, Settings
from .shorthands import written_out
from .standing_for import mapped_options, with_options
from .vaults import refuse_plain, vault_of

__all__ = ["Deployment", "Layer", "explain", "known_names", "load_deployment", "merge", "validate_file"]


@dataclass(frozen=True)
class Layer:
    """One document of a deployment, and what it is: `profile`, `mode`, `environment`, `site` or `user`."""

    kind: str
    document: Document


@dataclass(frozen=True)
class Deployment:
    """The merged configuration of one node: what is asked for, and by which line."""

    name: str
    profile: Profile
    settings: dict[str, Any]
    minimum: Minimum
    mode: str | None = None
    origins: Origins = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    features: dict[str, Feature] = field(default_factory=dict)
    mapped: frozenset[str] = frozenset()

    def place(self, path: KeyPath) -> Place | None:
        """Who set the value at `path` (or its nearest parent)."""
        return place_in(self.origins, path)


@dataclass(frozen=True)
class Contribution:
    """What one layer says about a key: it `sets`, `appends` to or `unsets` it."""

    kind: str
    place: Place
    verb: str
    value: Any


def load_deployment(
    configs: Path,
    name: str,
    environment: str | None = None,
    site: Path | None = None,
    user: Path | None = None,
) -> Deployment:
    """The deployment `name` (a profile or a mode) with its layers.

    `configs` is the specification's tree. `environment` names a file of ``configs/environments``;
    `site` and `user` default to ``configs/overrides/*_overrides`` (YAML, TOML or JSON) where those exist.

    Raises ConfigurationError with every fault of every layer.
    """
    base, mode_document = _base_documents(configs, name)
    mode = parse(Mode, mode_document.data, mode_document.place) if mode_document else None
    layers = [Layer("profile", base)]
    if mode_document:
        layers.append(Layer("mode", _section(mode_document, "settings")))
    layers += _overrides(configs, environment, site, user)
    layers = [Layer(layer.kind, written_out(layer.document)) for layer in layers]
    _refuse_unsafe(layers)
    vault_of(configs, environment)
    if mode:
        layers = [Layer(*pair) for pair in with_options(mode, [(layer.kind, layer.document) for layer in layers])]
    merged, origins = merge(layer.document for layer in layers)
    profile = parse(Profile, merged, lambda path: place_in(origins, path) or Place(base.file))
    settings = profile.model_dump(exclude_none=True)
    return Deployment(
        name=name,
        profile=profile,
        settings=settings,
        minimum=mode.minimum if mode else _minimum(configs, name),
        mode=mode.mode if mode else None,
        origins=origins,
        layers=tuple(layers),
        features=mode.features if mode else {},
        mapped=mapped_options(mode) if mode else frozenset(),
    )


def explain(deployment: Deployment, path: KeyPath) -> list[Contribution]:
    """What each layer says about the key at `path`, lowest layer first; the last that sets it wins."""
    found = []
    for layer in deployment.layers:
        written: KeyPath = ()
        value: Any = layer.document.data
        for key in path:
            if not isinstance(value, dict) or not (spelt := _spelling(value, str(key))):
                break
            value, written = value[spelt], (*written, spelt)
            if value is None:
                found.append(Contribution(layer.kind, layer.document.place(written), "unsets", None))
                break
        else:
            verb = "appends" if str(written[-1]).endswith("+") else "sets"
            found.append(Contribution(layer.kind, layer.document.place(written), verb, value))
    return found


def known_names(configs: Path) -> dict[str, Path]:
    """Every profile and mode by name. Raises ConfigurationError where two files have one name."""
    found: dict[str, Path] = {}
    faults = []
    for folder in ("profiles", "modes"):
        for path in sorted((configs / folder).iterdir()) if (configs / folder).is_dir() else []:
            if path.suffix not in SUFFIXES:
                continue
            if path.stem in found:
                message = f"{shown_path(found[path.stem])} has the same name"
                faults.append(Fault(message, Place(shown_path(path)), fix="rename one of them"))
            found[path.stem] = path
    if faults:
        raise ConfigurationError(faults)
    return found


def known_environments(configs: Path) -> list[str]:
    """Every environment by name."""
    folder = configs / "environments"
    paths = folder.iterdir() if folder.is_dir() else []
    return sorted({path.stem for path in paths if path.suffix in (".env", *SUFFIXES)})


def validate_file(path: Path) -> str:
    """Check one file by itself and return what it is.

    One of ``profile``, ``mode``, ``environment``, ``vault``, ``lock`` (of images), ``layer``.
    Raises ConfigurationError.
    """
    if path.suffix == ".vault":
        refuse_plain(path)
        return "vault"
    if path.suffix == ".lock":
        load_images(path)
        return "lock"
    if path.suffix == ".env":
        _check(parse_environment(read_text(path), shown_path(path)), "environment", Settings)
        return "environment"
    document = read_document(path)
    if "mode" in document.data:
        mode = parse(Mode, document.data, document.place)
        _check(_section(document, "settings"), "mode", Settings)
        _refuse_other_name(document, "mode", path.stem, mode.mode)
        return "mode"
    model = Profile if "profile" in document.data else Settings
    _check(document, "layer", model)
    return "profile" if model is Profile else "layer"


def _check(document: Document, kind: str, model: type[Settings]) -> None:
    layer = Layer(kind, written_out(document))
    _refuse_unsafe([layer])
    merged, origins = merge([layer.document])
    parse(model, merged, lambda key: place_in(origins, key) or Place(document.file))


def _spelling(mapping: dict[str, Any], key: str) -> str | None:
    return next((spelt for spelt in (key, f"{key}+") if spelt in mapping), None)


def _overrides(configs: Path, environment: str | None, site: Path | None, user: Path | None) -> list[Layer]:
    """The layers above the profile, lowest first. Raises ConfigurationError with the faults of all of them."""
    readers: dict[str, Callable[[], Document | None]] = {
        "environment": lambda: environment_document(configs, environment) if environment else None,
        "site": lambda: _override(configs, "site", site),
        "user": lambda: _override(configs, "user", user),
    }
    layers, faults = [], []
    for kind, reader in readers.items():
        try:
            document = reader()
        except ConfigurationError as error:
            faults += error.faults
        else:
            layers += [Layer(kind, document)] if document else []
    if faults:
        raise ConfigurationError(faults)
    return layers


def _base_documents(configs: Path, name: str) -> tuple[Document, Document | None]:
    names = known_names(configs)
    if name not in names:
        place = Place(shown_path(configs))
        raise ConfigurationError(
            [Fault(f"no profile or mode is called '{name[:80]}'", place, "profile", nearest(name, names))]
        )
    document = read_document(names[name])
    if names[name].parent.name == "profiles":
        _refuse_other_name(document, "profile", name, document.data.get("profile"))
        return document, None
    _refuse_other_name(document, "mode", name, document.data.get("mode"))
    base = str(document.data.get("profile", ""))
    if base not in names or names[base].parent.name != "profiles":
        fix = nearest(base, [known for known, path in names.items() if path.parent.name == "profiles"])
        raise ConfigurationError(
            [Fault(f"no profile is called '{base[:80]}'", document.place(("profile",)), "profile", fix)]
        )
    return read_document(names[base]), document


def _refuse_other_name(document: Document, key: str, name: str, said: Any) -> None:
    """A file and what it holds have one name; a missing one is for the model to tell."""
    if isinstance(said, str) and said != name:
        raise ConfigurationError([Fault(f"must be '{name}', like its file", document.place((key,)), key)])


def _section(document: Document, key: str) -> Document:
    """The mapping below `key` as a document of its own, its lines kept."""
    lines = {path[1:]: line for path, line in document.lines.items() if path[:1] == (key,)}
    data = document.data.get(key) or {}
    return Document(document.file, data if isinstance(data, dict) else {}, lines)


def override_path(configs: Path, kind: str) -> Path:
    """Where the `site` or `user` layer of a tree is, or would be."""
    folder = configs / "overrides"
    return one_of(folder, f"{kind}_overrides") or folder / f"{kind}_overrides.yaml"


def _override(configs: Path, kind: str, given: Path | None) -> Document | None:
    path = given or one_of(configs / "overrides", f"{kind}_overrides")
    return read_document(path) if path else None


def environment_document(configs: Path, name: str) -> Document:
    """The layer of an environment. Raises ConfigurationError."""
    folder = configs / "environments"
    known = known_environments(configs)
    if name not in known:
        message = f"no environment is called '{name[:80]}'"
        raise ConfigurationError([Fault(message, Place(shown_path(folder)), "environment", nearest(name, known))])
    plain, typed = folder / f"{name}.env", one_of(folder, name)
    if plain.exists() and typed:
        message = f"{plain.name} and {typed.name} are one layer"
        raise ConfigurationError([Fault(message, Place(shown_path(folder)), fix="keep one of them")])
    return read_document(typed) if typed else parse_environment(read_text(plain), shown_path(plain))


def _refuse_unsafe(layers: list[Layer]) -> None:
    """Values are data on one line; what the node fills in (``@kos:…@``) nobody writes in a layer."""
    faults = [fault for layer in layers for fault in _unsafe(layer.document.data, (), layer.document)]
    if faults:
        raise ConfigurationError(faults)


def _unsafe(value: Any, path: KeyPath, document: Document) -> list[Fault]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    faults = [fault for key, item in inner for fault in _unsafe(item, (*path, key), document)]
    if isinstance(value, str):
        key = dotted(path)
        if not value.isprintable():
            faults.append(Fault("a value is one line of plain text", document.place(path), key))
        if "@kos:" in value:
            message = "@kos:…@ is filled in on the node from the catalogue's templates, never from a layer"
            faults.append(Fault(message, document.place(path), key, "write the value itself"))
        if len(value) > MAX_TEXT:
            faults.append(Fault(f"longer than {MAX_TEXT} characters", document.place(path), key))
    return faults


MAX_TEXT = 1024


def _minimum(configs: Path, profile: str) -> Minimum:
    document = read_document(one_of(configs, "requirements") or configs / "requirements.yaml")
    return parse(Requirements, document.data, document.place).profiles.get(profile, Minimum())
