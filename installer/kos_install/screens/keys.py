# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public keys of OpenSSH: pasted, named by file, or found on a USB stick."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..answers import PublicKey
from .words import _

_KEY = TypeAdapter(PublicKey)
_LARGEST = 1 << 16  # bytes; a file of keys is far smaller
_PLACES = ("*.pub", ".ssh/*.pub", ".ssh/authorized_keys", "authorized_keys")
_QUIET = "ro,nosuid,nodev,noexec"


# Of the whole process, as the language is. A visitor's lines are read by root: they name no file.
_allowed = {"files": True}


def name_no_files() -> None:
    """From now on only a key is a key: for the screens of who came in over SSH."""
    _allowed["files"] = False


def read(text: str, root: Path = Path("/")) -> list[str]:
    """The keys in a text: one a line, or the name of a file with them; what is neither is left out."""
    return [key for line in _lines(text, root) if (key := _key(line))]


def fault(text: str, root: Path = Path("/")) -> str:
    """What is wrong with the first line that is no key; empty where all are."""
    wrong = [line for line in _lines(text, root) if not _key(line)]
    if not wrong:
        return ""
    if "PRIVATE" in text:
        return _("that is a private key: it must never leave its machine. Take the file that ends in .pub")
    return _("this is no public key of OpenSSH: {line}").format(line=wrong[0][:40])


def named(key: str) -> str:
    """A key in a few words: its kind and its comment."""
    kind, _space, rest = key.partition(" ")
    comment = rest.partition(" ")[2]
    return f"{kind} {comment}" if comment else f"{kind} ...{rest[-12:]}"


def on_sticks() -> list[str]:
    """The keys on every removable disk, each mounted read-only for as long as that takes."""
    found: dict[str, None] = {}
    for path in _removable():
        with tempfile.TemporaryDirectory(prefix="kos-keys-") as folder:
            if subprocess.run(["mount", "-o", _QUIET, path, folder], capture_output=True, check=False).returncode:
                continue
            try:
                found.update(dict.fromkeys(below(Path(folder))))
            finally:
                subprocess.run(["umount", folder], check=True, capture_output=True)
    return list(found)


def below(folder: Path) -> list[str]:
    """The keys in the places of a folder where people keep them."""
    files = (path for place in _PLACES for path in sorted(folder.glob(place)) if path.is_file())
    return [key for path in files for key in read(_text(path), folder)]


def _removable() -> list[str]:
    argv = ["lsblk", "--json", "--output", "PATH,RM,HOTPLUG,FSTYPE,MOUNTPOINTS"]
    try:
        done = subprocess.run(argv, capture_output=True, check=True, text=True, timeout=20)
        rows = json.loads(done.stdout)["blockdevices"]
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return []
    every = [*rows, *(child for row in rows for child in row.get("children", ()))]
    return [
        row["path"] for row in every
        if (row["rm"] or row["hotplug"]) and row["fstype"] in {"vfat", "exfat", "ext4", "ntfs", "iso9660"}
        and not any(row.get("mountpoints") or [])
    ]  # fmt: skip


def _lines(text: str, root: Path) -> Iterator[str]:
    for line in (one.strip() for one in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if _allowed["files"] and line.startswith("/") and " " not in line:
            yield from (inner for inner in _text(root / line[1:]).splitlines() or [line] if inner.strip())
        else:
            yield line


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return ""


def _key(line: str) -> str:
    try:
        return str(_KEY.validate_python(line.strip()))
    except ValidationError:
        return ""
