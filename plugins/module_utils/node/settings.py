# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of the machine that are no files of ours: sysctls, and modes of Debian's own files.

What was there before kOS is remembered in one record and given back when nothing asks for the setting any more.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import files
from .files import NodeError, Root
from .journal import Journal

RECORD = "settings.json"
_SYSCTLS = "/proc/sys"


class NotSet(NodeError):
    """The kernel does not take a value."""


@dataclass(frozen=True)
class Setting:
    """One value; a sysctl is named by its path below /proc/sys, since the name of an interface may hold a dot."""

    kind: str
    name: str
    value: str

    @property
    def key(self) -> str:
        """What the record calls it."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Difference:
    """A setting that is not as it should be; `found` is what it is instead."""

    setting: Setting
    found: str
    row: dict[str, Any]


def differing(root: Root, manifest: dict[str, Any]) -> list[Difference]:
    """What of the machine is not as `manifest` wants it and can be set here."""
    found = []
    for setting, row in _wanted(root, manifest):
        value = _value(root, setting)
        if value is not None and value != setting.value and not _obstacle(root, setting):
            found.append(Difference(setting, value, row))
    return found


def not_here(root: Root, manifest: dict[str, Any]) -> list[dict[str, str]]:
    """The settings of `manifest` that this machine's kernel does not let it set, and why."""
    return [
        {"name": setting.name, "why": why}
        for setting, _row in _wanted(root, manifest)
        if _value(root, setting) not in (None, setting.value) and (why := _obstacle(root, setting))
    ]


def unasked(root: Root, manifest: dict[str, Any] | None) -> list[Setting]:
    """What kOS once set and `manifest` (None: nothing at all) does not ask for, with the value from before."""
    wanted = {setting.key for setting, _row in _wanted(root, manifest or {})}
    rows = files.read_json(root.state(RECORD), {})
    return [
        Setting(kind, name, value)
        for key, value in rows.items()
        if key not in wanted
        for kind, _space, name in [key.partition(" ")]
    ]


def set_all(root: Root, journal: Journal, settings: Iterable[Setting]) -> None:
    """Set each, remembering what was there. Raises NotSet."""
    wanted = list(settings)
    if not wanted:
        return
    journal.keep_original(root, f"{files.STATE}/{RECORD}")
    rows = files.read_json(root.state(RECORD), {})
    before = {setting: _value(root, setting) for setting in wanted}
    for setting, value in before.items():
        if value is not None:
            journal.write("setting", kind=setting.kind, name=setting.name, value=value)
            rows.setdefault(setting.key, value)
    files.write_json(root.state(RECORD), rows)
    for setting, value in before.items():
        if value is not None:
            _put(root, setting)


def give_back(root: Root, journal: Journal | None, settings: Iterable[Setting]) -> list[str]:
    """Put the values from before kOS back and forget them; a sentence for each that the kernel keeps as it is."""
    gone = list(settings)
    if not gone:
        return []
    if journal:
        journal.keep_original(root, f"{files.STATE}/{RECORD}")
    left = []
    for setting in gone:
        value = _value(root, setting)
        if value in (None, setting.value):
            continue
        if journal:
            journal.write("setting", kind=setting.kind, name=setting.name, value=value)
        try:
            _put(root, setting)
        except NotSet as error:
            left.append(f"{error}: it is as before after the next start of the machine")
    names = {setting.key for setting in gone}
    rows = {key: value for key, value in files.read_json(root.state(RECORD), {}).items() if key not in names}
    if rows:
        files.write_json(root.state(RECORD), rows)
    else:
        files.remove(root.state(RECORD))
    return left


def take_back(root: Root, journal: Journal) -> None:
    """Undo what the open transaction set."""
    for record in reversed(journal.of("setting")):
        # A value that can only be raised stays until the machine starts anew, when it is not set again.
        with contextlib.suppress(NotSet):
            _put(root, Setting(record["kind"], record["name"], record["value"]))


def _wanted(root: Root, manifest: dict[str, Any]) -> list[tuple[Setting, dict[str, Any]]]:
    """Every setting of `manifest`, a pattern as what it stands for here; of two for one name the later counts."""
    found: dict[str, tuple[Setting, dict[str, Any]]] = {}
    # A generation from before settings has no such key.
    for row in manifest.get("settings", []):
        for name in _names(root, row):
            setting = Setting(row["kind"], name, row["value"])
            found[setting.key] = (setting, row)
    return list(found.values())


def _names(root: Root, row: dict[str, Any]) -> list[str]:
    if row["kind"] != "sysctl":
        return [str(row["name"])]
    name = str(row["name"]).replace(".", "/")
    if "*" not in name:
        return [name]
    top = root.join(_SYSCTLS)
    return sorted(os.path.relpath(path, top) for path in glob.glob(f"{top}/{name}"))


def _path(root: Root, setting: Setting) -> str:
    return root.join(f"{_SYSCTLS}/{setting.name}" if setting.kind == "sysctl" else setting.name)


def _value(root: Root, setting: Setting) -> str | None:
    """What it is now; None where this machine has no such thing."""
    try:
        if setting.kind == "mode":
            return f"{stat.S_IMODE(os.stat(_path(root, setting)).st_mode):04o}"
        with open(_path(root, setting), encoding="ascii") as stream:
            return " ".join(stream.read().split())
    except OSError:
        return None


def _obstacle(root: Root, setting: Setting) -> str:
    """Why it cannot be set here, or nothing."""
    try:
        flags = os.statvfs(_path(root, setting)).f_flag
    except OSError:
        return ""
    if flags & os.ST_RDONLY:
        return "this machine shares its kernel with others (a container), and may not set it"
    return ""


def _put(root: Root, setting: Setting) -> None:
    path = _path(root, setting)
    try:
        if setting.kind == "mode":
            os.chmod(path, int(setting.value, 8))
            return
        with open(path, "w", encoding="ascii") as stream:
            stream.write(f"{setting.value}\n")
    except FileNotFoundError:
        # A network interface that has left.
        return
    except OSError as error:
        raise NotSet(f"{setting.kind} {setting.name} does not take {setting.value}: {error.strerror}") from error
