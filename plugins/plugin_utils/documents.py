# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a configuration file into plain data, remembering the line of every value.

YAML, JSON and TOML (by the file's ending) mean the same here: data only, bounded in size and depth.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .faults import ConfigurationError, Fault, Place, shown_path
from .syntax import Broken, KeyPath, Lines, Parsed, dotted, integer, refuse_unwritable
from .syntax_json import parse_json
from .syntax_toml import parse_toml
from .syntax_yaml import parse_yaml

__all__ = ["MAX_BYTES", "SUFFIXES", "Document", "KeyPath", "dotted", "one_of", "parse_document", "read_document"]

MAX_BYTES = 1 << 20
MAX_FACTS_BYTES = 64 << 20
SUFFIXES = (".yaml", ".yml", ".json", ".toml")


@dataclass(frozen=True)
class Document:
    """A mapping read from one file, and the line of each of its keys and items."""

    file: str
    data: dict[str, Any]
    lines: Lines = field(default_factory=dict)

    def place(self, path: KeyPath = ()) -> Place:
        """The place of the value at `path`, or of its nearest parent that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return Place(self.file, self.lines.get(path, 0))


def read_document(path: Path, control: bool = False) -> Document:
    """The mapping in `path`; with `control`, its texts may hold control characters.

    Raises ConfigurationError when the file cannot be read, is not UTF-8, is too large, or is not
    a plain mapping.
    """
    return parse_document(read_text(path), shown_path(path), control)


def parse_document(text: str, name: str, control: bool = False) -> Document:
    """The mapping written in `text`; `name` stands for the file in faults, its ending names the format.

    Raises ConfigurationError.
    """
    try:
        parsed, broken = _parsed(text, name)
        if not broken:
            refuse_unwritable(parsed, control)
    except Broken as fault:
        parsed, broken = Parsed(), [fault]
    if broken:
        raise ConfigurationError(_fault(one, name) for one in broken)
    return Document(name, parsed.data, parsed.lines)


def _parsed(text: str, name: str) -> tuple[Parsed, list[Broken]]:
    if name.endswith(".json"):
        return parse_json(text), []
    if name.endswith(".toml"):
        return parse_toml(text), []
    return parse_yaml(text)


def _fault(broken: Broken, name: str) -> Fault:
    return Fault(broken.message, Place(name, broken.line), dotted(broken.path), broken.fix)


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
        raw = read_bytes(path, limit)
    except OSError as error:
        raise ConfigurationError([Fault(f"cannot be read: {error.strerror}", Place(name))]) from error
    except ValueError as error:
        raise ConfigurationError([Fault("is no name of a file", Place(repr(name)))]) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigurationError([Fault("not UTF-8", Place(name, line), fix="save it as UTF-8")]) from error


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file. Raises ConfigurationError for any other kind or size, and OSError."""
    # O_NONBLOCK: opening a FIFO must not hang.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigurationError([Fault("not a regular file", Place(shown_path(path)))])
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            raw = stream.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(raw) > limit:
        raise ConfigurationError([Fault(f"larger than {limit // 1024} KiB", Place(shown_path(path)))])
    return raw


def one_of(folder: Path, stem: str) -> Path | None:
    """The file called `stem` in `folder`, in whichever format. Raises ConfigurationError where there are two."""
    found = [path for suffix in SUFFIXES if os.path.lexists(path := folder / f"{stem}{suffix}")]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ConfigurationError([Fault(f"{names} are one layer", Place(shown_path(folder)), fix="keep one of them")])
    return found[0] if found else None


def typed(text: str, name: str = "value") -> Any:
    """What `text` means outside a file (on a command line, in an environment): a list, a number, a truth, or itself.

    Raises ConfigurationError for a list that cannot be read.
    """
    if text in ("true", "false"):
        return text == "true"
    if text == "null":
        return None
    if re.fullmatch(r"-?(0|[1-9][0-9]*)", text, re.ASCII):
        try:
            return integer(text, 0)
        except Broken as fault:
            raise ConfigurationError([Fault(fault.message, Place(name), fix=fault.fix)]) from fault
    if re.fullmatch(r"-?(0|[1-9][0-9]*)\.[0-9]+", text, re.ASCII):
        return float(text)
    if text[:1] in ("[", '"'):
        return parse_document(f"value: {text}", name).data["value"]
    return text
