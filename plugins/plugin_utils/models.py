# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers shared by every typed model: strict parsing, and pydantic's errors as faults."""

from __future__ import annotations

import re
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

SHOWN = 50
_SHAPES: dict[Any, str] = {dict: "a mapping", list: "a list"}


def parse(model: type[Model], data: dict[str, Any], place: Callable[[KeyPath], Place]) -> Model:
    """`data` as a `model`; `place` tells where the value at a key path was written.

    Raises ConfigurationError with one fault per wrong value, each naming the nearest known key. The faults of a model
    that has pydantic's `hide_input_in_errors` show no value: a secret may stand where it does not belong.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(_faults(error, model, data, place)) from error


def _faults(
    error: ValidationError, model: type[BaseModel], data: dict[str, Any], place: Callable[[KeyPath], Place]
) -> list[Fault]:
    details = [(_existing(detail["loc"], data), detail) for detail in error.errors(include_url=False)]
    # A value that fits no member of a union is one fault: that of the member which got furthest into it.
    deeper = {path[:length] for path, _detail in details for length in range(len(path))}
    faults: dict[tuple[KeyPath, str], Fault] = {}
    for path, detail in details:
        kind = detail["type"]
        listed = kind if kind in ("missing", "extra_forbidden") else "wrong"
        where = (*path, detail["loc"][-1]) if kind == "missing" else path
        if listed == "wrong" and path in deeper:
            continue
        known = faults.get((where, listed))
        if known is None or (kind == "literal_error" and not known.fix):
            faults[where, listed] = _fault(model, where, detail, place)
        if len(faults) > SHOWN:
            return [*faults.values(), Fault("and more of the kind: mend these first", place(()))]
    return list(faults.values())


def _fault(model: type[BaseModel], path: KeyPath, detail: Any, place: Callable[[KeyPath], Place]) -> Fault:
    if detail["type"] == "extra_forbidden":
        return Fault("unknown key", place(path), dotted(path), nearest(str(path[-1]), known_keys(model, path[:-1])))
    if detail["type"] == "missing":
        return Fault("required and missing", place(path), dotted(path), "add it")
    value, hidden = detail.get("input"), model.model_config.get("hide_input_in_errors", False)
    if detail["type"] == "literal_error" and isinstance(value, str):
        words = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        what = "what is written" if hidden else f"'{_short(value)}'"
        return Fault(f"{what} is not a value of this key", place(path), dotted(path), nearest(value, words))
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if hidden:
        return Fault(message, place(path), dotted(path))
    return Fault(f"{_SHAPES.get(type(value)) or _short(repr(value))}: {message}", place(path), dotted(path))


def _short(text: str) -> str:
    """`text` as a fault shows it: not too long, and without the password of an address."""
    text = re.sub(r"(//[^/@\s]*?:)[^/@\s]*@", r"\1…@", text)
    return text if len(text) <= 80 else text[:79] + "…"


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


def known_keys(model: type[BaseModel], path: KeyPath) -> set[str]:
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
