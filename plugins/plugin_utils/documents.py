# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a configuration file into plain data, remembering the line of every value.

YAML is read as data only: no aliases, no tags, no duplicate keys, bounded in size and depth.
JSON is a subset of YAML and goes the same way.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .faults import ConfigurationError, Fault, Place, shown_path

MAX_BYTES = 1 << 20
MAX_FACTS_BYTES = 64 << 20
MAX_DEPTH = 40
KeyPath = tuple[str | int, ...]

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "map", "seq")}


@dataclass(frozen=True)
class Document:
    """A mapping read from one file, and the line of each of its keys and items."""

    file: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def place(self, path: KeyPath = ()) -> Place:
        """The place of the value at `path`, or of its nearest parent that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return Place(self.file, self.lines.get(path, 0))


def read_document(path: Path) -> Document:
    """The mapping in `path`.

    Raises ConfigurationError when the file cannot be read, is not UTF-8, is too large, or is not
    a plain mapping.
    """
    return parse_document(read_text(path), shown_path(path))


def parse_document(text: str, name: str) -> Document:
    """The mapping written in `text`; `name` stands for the file in faults."""
    try:
        _refuse_unsafe(text, name)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigurationError([_syntax_fault(error, name)]) from error
    if node is None:
        raise ConfigurationError([Fault("the file is empty", Place(name), fix="write at least one key")])
    if not isinstance(node, yaml.MappingNode):
        raise ConfigurationError([Fault("the file must be a mapping (key: value)", Place(name, 1))])
    document = Document(name, {})
    faults: list[Fault] = []
    document.data.update(_plain(node, (), document, faults))
    if faults:
        raise ConfigurationError(faults)
    return document


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON mapping in `path`: facts of one machine or of a fleet, far larger than what a person writes.

    Raises ConfigurationError as `read_document` does.
    """
    name = shown_path(path)
    try:
        data = json.loads(read_text(path, MAX_FACTS_BYTES))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError([Fault(f"not valid JSON: {error}", Place(name))]) from error
    if not isinstance(data, dict):
        raise ConfigurationError([Fault("must be a mapping: what kai facts prints", Place(name))])
    return data


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """The text of a file of at most `limit` bytes. Raises ConfigurationError as `read_document` does."""
    name = shown_path(path)
    try:
        # O_NONBLOCK: opening a FIFO must not hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigurationError([Fault("not a regular file", Place(name))])
            raw = os.read(descriptor, limit + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError([Fault(f"cannot be read: {error.strerror}", Place(name))]) from error
    if len(raw) > limit:
        raise ConfigurationError([Fault(f"larger than {limit // 1024} KiB", Place(name))])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigurationError([Fault("not UTF-8", Place(name, line), fix="save it as UTF-8")]) from error


def _refuse_unsafe(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        place = Place(name, event.start_mark.line + 1 if event.start_mark else 0)
        if isinstance(event, yaml.AliasEvent):
            raise ConfigurationError([Fault("aliases (*name) are not accepted", place, fix="write the value out")])
        tag = getattr(event, "tag", None)
        if tag not in (None, "!") and tag not in _CORE_TAGS:
            raise ConfigurationError([Fault(f"the tag {tag} is not accepted", place, fix="write plain data")])
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigurationError([Fault(f"nested deeper than {MAX_DEPTH} levels", place)])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax_fault(error: yaml.YAMLError, name: str) -> Fault:
    mark = getattr(error, "problem_mark", None)
    parts = [getattr(error, name, None) for name in ("context", "problem")]
    problem = ", ".join(part for part in parts if part) or str(error).splitlines()[0]
    return Fault(f"not valid YAML: {problem}", Place(name, mark.line + 1 if mark else 0))


def _plain(node: yaml.Node, path: KeyPath, document: Document, faults: list[Fault]) -> Any:
    document.lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, path, document, faults)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), document, faults) for index, item in enumerate(node.value)]
    if node.tag not in _CORE_TAGS:
        # Dates, binaries, merge keys and the like mean what was typed.
        return node.value
    return yaml.constructor.SafeConstructor().construct_object(node)


def _plain_mapping(node: yaml.MappingNode, path: KeyPath, document: Document, faults: list[Fault]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            faults.append(Fault("a key must be a word", Place(document.file, line)))
            continue
        key = key_node.value
        if key in result:
            faults.append(Fault("written twice in one mapping", Place(document.file, line), dotted((*path, key))))
            continue
        result[key] = _plain(value_node, (*path, key), document, faults)
        document.lines[(*path, key)] = line
    return result


def dotted(path: KeyPath) -> str:
    """``('services', 'llm_backends', 0)`` as ``services.llm_backends[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
