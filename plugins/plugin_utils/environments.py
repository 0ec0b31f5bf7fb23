# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``KOS__logging__level=debug`` lines as the layer ``logging: {level: debug}``."""

from __future__ import annotations

from typing import Any

from .documents import Document, typed
from .faults import ConfigurationError, Fault, Place
from .syntax import MAX_DEPTH, known_key


def parse_environment(text: str, name: str) -> Document:
    """The layer that the lines of `text` make; `name` stands for the file in faults.

    Raises ConfigurationError with every line that is wrong.
    """
    document = Document(name, {})
    faults: list[Fault] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            _add(document, line.strip(), number)
        except ConfigurationError as error:
            faults += [Fault(fault.message, Place(name, number), fault.key, fault.fix) for fault in error.faults]
    if faults:
        raise ConfigurationError(faults)
    return document


def _add(document: Document, line: str, number: int) -> None:
    name, equals, value = line.partition("=")
    prefix, *keys = name.split("__")
    if not equals or prefix != "KOS" or not keys or not all(keys) or len(keys) > MAX_DEPTH:
        raise ConfigurationError([Fault("expected KOS__section__key=value")])
    target: dict[str, Any] = document.data
    for depth, key in enumerate(keys[:-1], 1):
        document.lines.setdefault(tuple(keys[:depth]), number)
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigurationError([Fault("is a single value in a line above", key=".".join(keys))])
    if known_key(keys[-1], target):
        raise ConfigurationError([Fault("written twice", key=".".join(keys), fix="keep one of the lines")])
    target[keys[-1]] = typed(value)
    document.lines[tuple(keys)] = number
