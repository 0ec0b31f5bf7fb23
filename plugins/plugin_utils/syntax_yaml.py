# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML as data only: no aliases, no tags, no duplicate keys, and nothing that YAML 1.1 and 1.2 read differently."""

from __future__ import annotations

import re
from typing import Any

import yaml

from .syntax import (
    MAX_DEPTH,
    MAX_VALUES,
    Broken,
    KeyPath,
    Lines,
    Parsed,
    integer,
    known_key,
    too_deep,
    too_many,
    written_twice,
)

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX = "tag:yaml.org,2002:"
_CORE_TAGS = {_PREFIX + name for name in ("null", "bool", "int", "float", "str", "map", "seq")}

# What every reader takes for the same thing.
_PLAIN = {
    _PREFIX + "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    _PREFIX + "int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    _PREFIX + "float": re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"),
}


def parse_yaml(text: str) -> tuple[Parsed, list[Broken]]:
    """The mapping in `text` and what is wrong in it. Raises Broken where nothing can be read at all."""
    try:
        _refuse_unsafe(text)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _syntax_fault(error) from error
    if node is None:
        raise Broken("the file is empty", fix="write at least one key")
    if not isinstance(node, yaml.MappingNode):
        raise Broken("the file must be a mapping (key: value)", 1)
    parsed, faults = Parsed(), list[Broken]()
    parsed.data.update(_plain(node, (), parsed.lines, faults))
    return parsed, faults


def _refuse_unsafe(text: str) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if count > MAX_VALUES:
            raise too_many(line)
        if isinstance(event, yaml.AliasEvent):
            raise Broken("aliases (*name) are not accepted", line, "write the value out")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!") and tag not in _CORE_TAGS:
            raise Broken(f"the tag {tag[:80]} is not accepted", line, "write plain data")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise too_deep(line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax_fault(error: yaml.YAMLError) -> Broken:
    mark = getattr(error, "problem_mark", None)
    parts = [getattr(error, name, None) for name in ("context", "problem")]
    problem = ", ".join(part for part in parts if part) or str(error).splitlines()[0]
    return Broken(f"not valid YAML: {problem}", mark.line + 1 if mark else 0)


def _plain(node: yaml.Node, path: KeyPath, lines: Lines, faults: list[Broken]) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, path, lines, faults)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), lines, faults) for index, item in enumerate(node.value)]
    try:
        return _scalar(node, path, lines[path])
    except Broken as fault:
        faults.append(fault)
        return None


def _scalar(node: Any, path: KeyPath, line: int) -> Any:
    known = _PLAIN.get(node.tag)
    if known is not None:
        if not known.fullmatch(node.value):
            message = f"'{node.value[:40]}' is one thing to YAML 1.1 and another to YAML 1.2"
            raise Broken(message, line, "write true, false or a plain decimal number, or put it in quotes", path)
        if node.tag == _PREFIX + "int":
            return integer(node.value, line)
        return float(node.value) if node.tag == _PREFIX + "float" else node.value.lower() == "true"
    # Dates, merge keys and the like mean what was typed.
    return None if node.tag == _PREFIX + "null" else node.value


def _plain_mapping(node: yaml.MappingNode, path: KeyPath, lines: Lines, faults: list[Broken]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            faults.append(Broken("a key must be a word", line))
            continue
        key = key_node.value
        if known_key(key, result):
            faults.append(written_twice((*path, key), line))
            continue
        result[key] = _plain(value_node, (*path, key), lines, faults)
        lines[(*path, key)] = line
    return result
