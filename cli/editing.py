# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change one key of a layer in place: comments and order stay, and the file is whole at any moment."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomlkit
from ruamel.yaml import YAML
from ruamel.yaml.util import load_yaml_guess_indent

from ..plugins.plugin_utils.documents import SUFFIXES, parse_document, read_text
from ..plugins.plugin_utils.faults import ConfigurationError, Fault, Place, shown_path

_NEW = """\
# What this layer changes: docs/configuration.md. Written by `kai config set`; edit it as you like.
"""


def changed(path: Path, keys: tuple[str, ...], value: Any) -> str:
    """The text of the layer at `path` with `keys` set to `value`. Raises ConfigurationError."""
    if path.suffix not in SUFFIXES:
        raise ConfigurationError([Fault("is no layer that can be edited", Place(str(path)), fix=" or ".join(SUFFIXES))])
    text = read_text(path) if os.path.lexists(path) else ""
    if any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        parse_document(text, shown_path(path))
    if path.suffix == ".json":
        data = json.loads(text or "{}")
        _assign(data, keys, value, path)
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    if path.suffix == ".toml":
        document = tomlkit.parse(text or _NEW)
        if value is None:
            raise ConfigurationError(
                [Fault("TOML has no null", Place(shown_path(path)), fix="remove the key, or keep this layer in YAML")]
            )
        _assign(document, keys, value, path)
        return tomlkit.dumps(document)
    return _changed_yaml(text or _NEW, keys, value, path)


def _changed_yaml(text: str, keys: tuple[str, ...], value: Any, path: Path) -> str:
    _data, indent, offset = load_yaml_guess_indent(text)
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 4096
    editor.indent(mapping=2, sequence=indent or 4, offset=offset if offset is not None else 2)
    data = editor.load(text)
    if data is None:
        # Only comments: they stay above what is added.
        fresh: dict[str, Any] = {}
        _assign(fresh, keys, value, path)
        stream = io.StringIO()
        editor.dump(fresh, stream)
        return text.rstrip("\n") + "\n" + stream.getvalue()
    _assign(data, keys, value, path)
    stream = io.StringIO()
    editor.dump(data, stream)
    return stream.getvalue()


def _assign(data: Any, keys: tuple[str, ...], value: Any, path: Path) -> None:
    target = data
    for key in keys[:-1]:
        if target.get(key) is None:
            target[key] = tomlkit.table() if path.suffix == ".toml" else {}
        target = target[key]
        if not hasattr(target, "items"):
            place = Place(shown_path(path))
            raise ConfigurationError([Fault(f"'{key}' is a single value there", place, ".".join(keys), "remove it")])
    last = keys[-1]
    name = last.removesuffix("+")
    if last != name and f"{name}+" not in target and name in target:
        # The layer has the whole list: what is appended goes into it.
        last = name
        value = [*_listed(target[name]), *_listed(value)]
    elif last != name:
        value = [*_listed(target.get(last)), *_listed(value)]
    else:
        target.pop(f"{name}+", None)
    target[last] = value


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def replace(path: Path, text: str, check: Callable[[Path], None]) -> None:
    """Write `text` to `path` in one step, after `check` has seen it beside the old file under the same ending.

    Raises ConfigurationError from `check`, naming the file that was to be written; nothing is left behind then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise ConfigurationError([Fault(f"cannot be written: {error.strerror}", Place(str(path)))]) from error
    candidate = Path(temporary)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        _checked(candidate, path, check)
        candidate.replace(path)
    finally:
        candidate.unlink(missing_ok=True)


def _checked(candidate: Path, path: Path, check: Callable[[Path], None]) -> None:
    try:
        check(candidate)
    except ConfigurationError as error:
        shown, real = shown_path(candidate), shown_path(path)
        faults = []
        for fault in error.faults:
            place = Place(real, fault.place.line) if fault.place and fault.place.file == shown else fault.place
            faults.append(Fault(fault.message.replace(shown, real), place, fault.key, fault.fix))
        raise ConfigurationError([*faults, Fault("nothing was written", Place(real))]) from None
