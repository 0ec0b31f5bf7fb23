# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base profile, mode, environment, site and user layers merged into one deployment.

Later layers win; mappings merge, lists replace unless the key ends in ``+``; every value remembers
the file and line that set it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .documents import Document, KeyPath, dotted, read_document, read_text
from .faults import ConfigurationError, Fault, Place, nearest, shown_path
from .models import parse
from .profile import Minimum, Mode, Profile, Requirements, Settings

LAYER_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Deployment:
    """The merged configuration of one node: what is asked for, and by which line."""

    name: str
    profile: Profile
    settings: dict[str, Any]
    minimum: Minimum
    mode: str | None = None
    origins: dict[KeyPath, Place] = field(default_factory=dict)

    def place(self, path: KeyPath) -> Place | None:
        """Who set the value at `path` (or its nearest parent)."""
        return _place(self.origins, path)


def load_deployment(
    configs: Path,
    name: str,
    environment: str | None = None,
    site: Path | None = None,
    user: Path | None = None,
) -> Deployment:
    """The deployment `name` (a profile or a mode) with its layers.

    `configs` is the specification's tree. `environment` names a file of ``configs/environments``;
    `site` and `user` default to ``configs/overrides/*_overrides.yaml`` where those exist.

    Raises ConfigurationError with every fault of every layer.
    """
    base, mode = _base_documents(configs, name)
    layers = [base]
    if mode is not None:
        mode_model = parse(Mode, mode.data, mode.place)
        layers.append(_section(mode, "settings"))
    layers += _overrides(configs, environment, site, user)
    merged, origins = merge(layers)
    if mode is not None:
        _apply_options(merged, origins, mode_model)
    profile = parse(Profile, merged, lambda path: _place(origins, path) or Place(base.file))
    minimum = mode_model.minimum if mode is not None else _minimum(configs, name)
    settings = profile.model_dump(exclude_none=True)
    return Deployment(name, profile, settings, minimum, mode_model.mode if mode else None, origins)


def _overrides(configs: Path, environment: str | None, site: Path | None, user: Path | None) -> list[Document]:
    """The layers above the profile, lowest first. Raises ConfigurationError with the faults of all of them."""
    readers: list[Callable[[], Document | None]] = [
        lambda: _environment_document(configs, environment) if environment else None,
        lambda: _override(configs, "site", site),
        lambda: _override(configs, "user", user),
    ]
    documents, faults = [], []
    for reader in readers:
        try:
            document = reader()
        except ConfigurationError as error:
            faults += error.faults
        else:
            documents += [document] if document else []
    if faults:
        raise ConfigurationError(faults)
    return documents


def known_names(configs: Path) -> dict[str, Path]:
    """Every profile and mode by name."""
    found: dict[str, Path] = {}
    for folder in ("profiles", "modes"):
        for path in sorted((configs / folder).iterdir()) if (configs / folder).is_dir() else []:
            if path.suffix in LAYER_SUFFIXES:
                found[path.stem] = path
    return found


def merge(documents: Iterable[Document]) -> tuple[dict[str, Any], dict[KeyPath, Place]]:
    """The deep merge of `documents`, later over earlier, and the origin of every value.

    Raises ConfigurationError when two layers give one key different shapes.
    """
    merged: dict[str, Any] = {}
    origins: dict[KeyPath, Place] = {}
    faults: list[Fault] = []
    for document in documents:
        _merge_into(merged, document.data, (), (), document, origins, faults)
    if faults:
        raise ConfigurationError(faults)
    return merged, origins


def _merge_into(
    target: dict[str, Any],
    source: dict[str, Any],
    path: KeyPath,
    written: KeyPath,
    document: Document,
    origins: dict[KeyPath, Place],
    faults: list[Fault],
) -> None:
    """`path` is where a value lands, `written` how its key is spelt in the file (with ``+``)."""
    for raw_key, value in source.items():
        key = raw_key.removesuffix("+")
        here, there = (*path, key), (*written, raw_key)
        place = document.place(there)
        present = target.get(key)
        if raw_key.endswith("+"):
            target[key] = _appended(present, value)
            first = len(target[key]) - (len(value) if isinstance(value, list) else 1)
            for index in range(first, len(target[key])):
                origins[(*here, index)] = document.place((*there, index - first))
            origins.setdefault(here, place)
        elif isinstance(value, dict) and isinstance(present, dict):
            _merge_into(present, value, here, there, document, origins, faults)
        elif present is not None and value is not None and isinstance(present, dict) != isinstance(value, dict):
            before = origins.get(here)
            faults.append(Fault(f"is a {_shape(value)} here and a {_shape(present)} in {before}", place, dotted(here)))
        else:
            _forget(origins, here)
            target[key] = _copied(value, here, there, document, origins)


def _copied(value: Any, here: KeyPath, there: KeyPath, document: Document, origins: dict[KeyPath, Place]) -> Any:
    origins[here] = document.place(there)
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        for raw, inner in value.items():
            key = raw.removesuffix("+")
            inner = [inner] if raw.endswith("+") and not isinstance(inner, list) else inner
            result[key] = _copied(inner, (*here, key), (*there, raw), document, origins)
        return result
    if isinstance(value, list):
        return [_copied(item, (*here, i), (*there, i), document, origins) for i, item in enumerate(value)]
    return value


def _appended(present: Any, value: Any) -> list[Any]:
    before = present if isinstance(present, list) else [] if present is None else [present]
    return [*before, *(value if isinstance(value, list) else [value])]


def _forget(origins: dict[KeyPath, Place], path: KeyPath) -> None:
    for known in [known for known in origins if known[: len(path)] == path]:
        del origins[known]


def _shape(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, list) else "single value"


def _place(origins: dict[KeyPath, Place], path: KeyPath) -> Place | None:
    while path and path not in origins:
        path = path[:-1]
    return origins.get(path)


def _base_documents(configs: Path, name: str) -> tuple[Document, Document | None]:
    names = known_names(configs)
    if name not in names:
        fault = Fault(f"no profile or mode is called '{name}'", Place(shown_path(configs)), "profile")
        raise ConfigurationError([Fault(fault.message, fault.place, fault.key, nearest(name, names))])
    document = read_document(names[name])
    if names[name].parent.name == "profiles":
        return document, None
    base = str(document.data.get("profile", ""))
    if base not in names or names[base].parent.name != "profiles":
        fix = nearest(base, names)
        raise ConfigurationError(
            [Fault(f"no profile is called '{base}'", document.place(("profile",)), "profile", fix)]
        )
    return read_document(names[base]), document


def _section(document: Document, key: str) -> Document:
    """The mapping below `key` as a document of its own, its lines kept."""
    lines = {path[1:]: line for path, line in document.lines.items() if path[:1] == (key,)}
    return Document(document.file, document.data.get(key, {}), lines)


def _override(configs: Path, kind: str, given: Path | None) -> Document | None:
    path = given or configs / "overrides" / f"{kind}_overrides.yaml"
    return read_document(path) if given or path.exists() else None


def _environment_document(configs: Path, name: str) -> Document:
    """``KOS__logging__level=debug`` lines as the layer ``logging: {level: debug}``."""
    path = configs / "environments" / f"{name}.env"
    if not path.exists():
        known = [found.stem for found in path.parent.glob("*.env")]
        raise ConfigurationError(
            [Fault(f"no environment is called '{name}'", Place(shown_path(path)), fix=nearest(name, known))]
        )
    document = Document(shown_path(path), {})
    faults = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.strip().partition("=")
        keys = key.split("__")
        if not equals or keys[0] != "KOS" or len(keys) < 2 or not all(keys):
            faults.append(Fault("expected KOS__section__key=value", Place(document.file, number)))
            continue
        try:
            _set_path(document.data, keys[1:], _scalar(value))
        except TypeError:
            faults.append(Fault("is a single value in a line above", Place(document.file, number), ".".join(keys[1:])))
        for depth in range(1, len(keys)):
            document.lines[tuple(keys[1 : depth + 1])] = number
    if faults:
        raise ConfigurationError(faults)
    return document


def _scalar(text: str) -> bool | int | str:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdecimal() else text


def _set_path(target: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise TypeError(key)
    target[keys[-1]] = value


def _apply_options(merged: dict[str, Any], origins: dict[KeyPath, Place], mode: Mode) -> None:
    """Write each option of the mode that a layer has set to the settings key it stands for."""
    options = merged.get(mode.mode) or {}
    for option, target in mode.option_keys.items():
        if options.get(option) is not None:
            keys = target.split(".")
            _set_path(merged, keys, options[option])
            origins[tuple(keys)] = origins[(mode.mode, option)]


def _minimum(configs: Path, profile: str) -> Minimum:
    path = configs / "requirements.yaml"
    document = read_document(path)
    return parse(Requirements, document.data, document.place).profiles.get(profile, Minimum())


def validate_file(path: Path) -> str:
    """Check one file by itself and return what it is: ``profile``, ``mode`` or ``layer``.

    Raises ConfigurationError.
    """
    document = read_document(path)
    if "mode" in document.data:
        parse(Mode, document.data, document.place)
        return "mode"
    merged, origins = merge([document])
    model = Profile if "profile" in merged else Settings
    parse(model, merged, lambda key: _place(origins, key) or Place(document.file))
    return "profile" if model is Profile else "layer"
