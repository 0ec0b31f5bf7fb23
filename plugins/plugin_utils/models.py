# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers shared by every typed model: strict parsing, and pydantic's errors as faults."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .documents import KeyPath, dotted
from .faults import ConfigurationError, Fault, Place, nearest


class Strict(BaseModel):
    """A model that knows all its keys and never coerces a string into a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], data: dict[str, Any], place: Callable[[KeyPath], Place]) -> Model:
    """`data` as a `model`; `place` tells where the value at a key path was written.

    Raises ConfigurationError with one fault per wrong value, each naming the nearest known key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(_faults(error, model, data, place)) from error


def _faults(
    error: ValidationError, model: type[BaseModel], data: dict[str, Any], place: Callable[[KeyPath], Place]
) -> list[Fault]:
    faults = []
    blamed = set()
    for detail in error.errors():
        path = _existing(detail["loc"], data)
        kind = detail["type"]
        # A value that fits no member of a union is one fault, not one for each member.
        if path in blamed and kind not in ("missing", "extra_forbidden"):
            continue
        blamed.add(path)
        if kind == "extra_forbidden":
            fix = nearest(str(path[-1]), _known_keys(model, path[:-1]))
            faults.append(Fault("unknown key", place(path), dotted(path), fix))
        elif kind == "missing":
            missing = (*path, detail["loc"][-1])
            faults.append(Fault("required and missing", place(path), dotted(missing), "add it"))
        else:
            value = detail.get("input")
            shown = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
            message = detail["msg"].removeprefix("Value error, ")
            faults.append(Fault(f"{shown}: {message[:1].lower()}{message[1:]}", place(path), dotted(path)))
    return faults


def _existing(loc: tuple[str | int, ...], data: Any) -> KeyPath:
    """The part of pydantic's location that names keys of the data, without its union labels."""
    path: list[str | int] = []
    for part in loc:
        if (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        ):
            data = data[part]  # type: ignore[index]
        else:
            continue
        path.append(part)
    return tuple(path)


def _known_keys(model: type[BaseModel], path: KeyPath) -> set[str]:
    """The keys that `model` accepts at `path`."""
    candidates: list[type[BaseModel]] = [model]
    for part in path:
        found: list[type[BaseModel]] = []
        for candidate in candidates:
            if isinstance(part, str) and part in candidate.model_fields:
                found += _models_in(candidate.model_fields[part].annotation)
        candidates = found or candidates if isinstance(part, int) else found
    return {name for candidate in candidates for name in candidate.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, dict, typing.Annotated):
        return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
    return []
