# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files as they were before kOS wrote them: type, content, mode, owner, time and extended attributes."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from . import files
from .files import Root


def record(root: Root, path: str, folder: str, name: str) -> dict[str, Any]:
    """What is at `path` now; the content of a regular file is copied to `name` in `folder`."""
    real = root.join(path)
    base: dict[str, Any] = {"path": path, "directories": missing_directories(root, path)}
    if os.path.islink(real):
        return {**base, "kind": "link", "target": os.readlink(real)}
    if not os.path.isfile(real):
        return {**base, "kind": "absent"}
    status = os.stat(real)
    files.write(os.path.join(folder, name), files.read(real) or b"", 0o600)
    return {
        **base, "kind": "file", "original": name, "mode": status.st_mode & 0o7777, "uid": status.st_uid,
        "gid": status.st_gid, "mtime": status.st_mtime_ns, "attributes": _attributes(real),
    }  # fmt: skip


def restore(root: Root, row: dict[str, Any], folder: str) -> None:
    """Bring back what `record` described, and drop the directories that were missing then and are empty now."""
    real = root.join(row["path"])
    files.drop_unfinished(real)
    if row["kind"] == "absent":
        files.remove(real)
    elif row["kind"] == "link":
        files.link(real, row["target"])
    else:
        content = files.read(os.path.join(folder, row["original"])) or b""
        files.write(real, content, row["mode"], row["uid"], row["gid"])
        os.utime(real, ns=(row["mtime"], row["mtime"]))
        for name, value in row["attributes"].items():
            # A file system that no longer takes an attribute still gets its file back.
            with contextlib.suppress(OSError):
                os.setxattr(real, name, bytes.fromhex(value))
    drop_empty(root, row["directories"])


def missing_directories(root: Root, path: str) -> list[str]:
    """The directories on the way to `path` that do not exist yet, outermost first."""
    found: list[str] = []
    folder = os.path.dirname(path)
    while folder != "/" and not os.path.lexists(root.join(folder)):
        found.insert(0, folder)
        folder = os.path.dirname(folder)
    return found


def drop_empty(root: Root, directories: list[str]) -> None:
    """Remove those of `directories` that are empty, innermost first."""
    for folder in sorted(directories, key=len, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(root.join(folder))


def _attributes(real: str) -> dict[str, str]:
    try:
        return {name: os.getxattr(real, name).hex() for name in os.listxattr(real)}
    except OSError:
        return {}
