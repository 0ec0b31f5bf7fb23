# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deep merge of documents: later ones win, every value remembers the file and line that set it. Pure.

Mappings merge; anything else replaces, unless the key ends in ``+``, which appends to a list; ``null`` unsets.
Without ``+`` and ``null`` the merge is associative.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .documents import Document
from .faults import ConfigurationError, Fault, Place
from .syntax import KeyPath, dotted

Origins = dict[KeyPath, Place]


def merge(documents: Iterable[Document]) -> tuple[dict[str, Any], Origins]:
    """The deep merge of `documents`, later over earlier, and the origin of every value.

    Raises ConfigurationError when two layers give one key different shapes.
    """
    merged: dict[str, Any] = {}
    origins: Origins = {}
    faults: list[Fault] = []
    for document in documents:
        _merge_into(merged, document.data, (), (), document, origins, faults)
    if faults:
        raise ConfigurationError(faults)
    return merged, origins


def place_in(origins: Origins, path: KeyPath) -> Place | None:
    """Who set the value at `path`, or its nearest parent that somebody set."""
    while path and path not in origins:
        path = path[:-1]
    return origins.get(path)


def _merge_into(
    target: dict[str, Any],
    source: dict[str, Any],
    path: KeyPath,
    written: KeyPath,
    document: Document,
    origins: Origins,
    faults: list[Fault],
) -> None:
    """`path` is where a value lands, `written` how its key is spelt in the file (with ``+``)."""
    for raw_key, value in source.items():
        key = raw_key.removesuffix("+")
        here, there = (*path, key), (*written, raw_key)
        present = target.get(key)
        appends = raw_key.endswith("+")
        fault = _shape_fault(present, value, appends, origins.get(here))
        if fault:
            faults.append(Fault(fault, document.place(there), dotted(here)))
        elif appends:
            _append(target, key, value, here, there, document, origins)
        elif isinstance(value, dict):
            if present is None:
                origins[here] = document.place(there)
            below = target[key] = {} if present is None else present
            _merge_into(below, value, here, there, document, origins, faults)
        else:
            if key in target:
                _forget(origins, here, present)
            target[key] = _copied(value, here, there, document, origins)


def _shape_fault(present: Any, value: Any, appends: bool, origin: Place | None) -> str | None:
    if appends:
        fits = not isinstance(value, dict) and value is not None and not isinstance(present, dict)
        return None if fits else "a key with + appends to a list: write a value or a list of them"
    if present is None or value is None or isinstance(present, dict) == isinstance(value, dict):
        return None
    return f"is a {_shape(value)} here and a {_shape(present)} in {origin}"


def _append(
    target: dict[str, Any], key: str, value: Any, here: KeyPath, there: KeyPath, document: Document, origins: Origins
) -> None:
    present = target.get(key)
    before = present if isinstance(present, list) else [] if present is None else [present]
    if before and not isinstance(present, list):
        origins[(*here, 0)] = origins[here]
    items = value if isinstance(value, list) else [value]
    first = len(before)
    for index, item in enumerate(items):
        place = (*there, index) if isinstance(value, list) else there
        before = [*before, _copied(item, (*here, first + index), place, document, origins)]
    target[key] = before
    if present is None:
        origins[here] = document.place(there)


def _copied(value: Any, here: KeyPath, there: KeyPath, document: Document, origins: Origins) -> Any:
    origins[here] = document.place(there)
    if isinstance(value, dict):
        return {key: _copied(item, (*here, key), (*there, key), document, origins) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item, (*here, i), (*there, i), document, origins) for i, item in enumerate(value)]
    return value


def _forget(origins: Origins, path: KeyPath, value: Any) -> None:
    """Drop the origins of a value that is replaced."""
    origins.pop(path, None)
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        _forget(origins, (*path, key), item)


def _shape(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, list) else "single value"
