# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a mode as the settings they stand for, each from the line that wrote the option."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .documents import Document
from .faults import ConfigurationError, Fault, nearest
from .merging import merge
from .profile import Mode, OptionKey
from .syntax import KeyPath, Lines, dotted

Setting = tuple[KeyPath, Any, KeyPath]


def with_options(mode: Mode, layers: Iterable[tuple[str, Document]]) -> list[tuple[str, Document]]:
    """`layers` (kind and document), each followed by the settings that its options stand for.

    Raises ConfigurationError for an option that names no known service, and for one that contradicts a setting of
    its own document.
    """
    result: list[tuple[str, Document]] = []
    faults: list[Fault] = []
    for kind, document in layers:
        result.append((kind, document))
        settings = list(_settings(mode, document, [below for _kind, below in result], faults))
        if settings:
            result.append((kind, _document(document, settings)))
    if faults:
        raise ConfigurationError(faults)
    return result


def mapped_options(mode: Mode) -> frozenset[str]:
    """The options of `mode` that stand for a settings key: it, and not they, is acted on or not."""
    found = {f"{mode.mode}.{option}" for option in mode.option_keys}
    if mode.service_options:
        base = f"{mode.mode}.{mode.service_options}"
        found |= {base, *(f"{base}.{name}" for name in mode.service_keys)}
        found |= {f"{base}.{name}.enabled" for name in mode.service_keys}
    return frozenset(found)


def _settings(mode: Mode, document: Document, below: list[Document], faults: list[Fault]) -> Iterator[Setting]:
    options = document.data.get(mode.mode)
    if not isinstance(options, dict):
        return
    for option, target in mode.option_keys.items():
        path = tuple(option.split("."))
        value = _at(options, path)
        if value is None:
            continue
        key = target if isinstance(target, str) else target.key
        setting = tuple(key.split("."))
        meant = value if isinstance(target, str) else _meant(target, value)
        _compare(document, setting, meant, (mode.mode, *path), faults)
        yield setting, meant, (mode.mode, *path)
    if mode.service_options:
        wanted = options.get(mode.service_options)
        yield from _services(mode, wanted, document, below, faults)


def _meant(target: OptionKey, value: Any) -> Any:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text in target.unset:
        return None
    if text in target.values:
        return target.values[text]
    return f"{value}{target.unit}" if target.unit and isinstance(value, int) else value


def _compare(document: Document, setting: KeyPath, value: Any, option: KeyPath, faults: list[Fault]) -> None:
    written = _at(document.data, setting)
    if written is not None and written != value:
        message = f"means {dotted(setting)}: {value}, which {document.place(setting)} sets to {written}"
        faults.append(Fault(message, document.place(option), dotted(option), "keep one of the two"))


def _services(
    mode: Mode, wanted: Any, document: Document, below: list[Document], faults: list[Fault]
) -> Iterator[Setting]:
    """Services named one by one: each is asked for in its capability, or taken out of it."""
    option: KeyPath = (mode.mode, mode.service_options or "")
    named = wanted if isinstance(wanted, dict) else dict.fromkeys(wanted or [], True) if _is_names(wanted) else {}
    present = (merge(below)[0].get("services") or {}) if named else {}
    changed: dict[str, tuple[list[Any], KeyPath]] = {}
    for index, (name, value) in enumerate(named.items()):
        service = name.replace("-", "_")
        path: KeyPath = (*option, name) if isinstance(wanted, dict) else (*option, index)
        if service not in mode.service_keys:
            message = f"the mode {mode.mode} has no service '{name}'"
            faults.append(Fault(message, document.place(path), dotted(path), nearest(service, mode.service_keys)))
            continue
        capability = mode.service_keys[service]
        before = changed[capability][0] if capability in changed else _listed(present.get(capability))
        others = [other for other in before if other != service]
        changed[capability] = ([*others, service] if _enabled(value) else others, path)
    for capability, (names, path) in changed.items():
        yield ("services", capability), _unlisted(names), path


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _enabled(value: Any) -> bool:
    return value.get("enabled", True) is not False if isinstance(value, dict) else value is not False


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _unlisted(names: list[Any]) -> Any:
    return names if len(names) > 1 else names[0] if names else None


def _document(source: Document, settings: list[Setting]) -> Document:
    data: dict[str, Any] = {}
    lines: Lines = {}
    for path, value, option in settings:
        line = source.place(option).line
        target = data
        for depth, key in enumerate(path[:-1], 1):
            target = target.setdefault(str(key), {})
            lines.setdefault(path[:depth], line)
        target[str(path[-1])] = value
        lines[path] = line
    return Document(source.file, data, lines)


def _at(data: dict[str, Any], path: KeyPath) -> Any:
    value: Any = data
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(str(key))
    return value
