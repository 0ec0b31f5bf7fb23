# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public keys of OpenSSH: pasted, named by file, or found on a USB stick."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from .. import glance
from ..answers import PublicKey
from ..errors import InstallError
from .words import _

_KEY = TypeAdapter(PublicKey)
_LARGEST = 1 << 16  # bytes; a file of keys is far smaller
_PLACES = ("*.pub", ".ssh/*.pub", ".ssh/authorized_keys", "authorized_keys")


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
    """The keys on every USB stick: no other disk is looked at, and not one byte of a stick changes."""
    found: dict[str, None] = {}
    for path, filesystem in _on_usb():
        # What cannot be mounted has no keys for us.
        with contextlib.suppress(InstallError, OSError), glance.into(path, filesystem) as folder:
            found.update(dict.fromkeys(below(folder)))
    return list(found)


def below(folder: Path) -> list[str]:
    """The keys in the places of a folder where people keep them."""
    files = (path for place in _PLACES for path in sorted(folder.glob(place)) if path.is_file())
    return [key for path in files for key in read(_text(path), folder)]


def _on_usb() -> list[tuple[str, str]]:
    # By how it is connected: internal SATA disks often say that they are removable, or can be plugged.
    argv = ["lsblk", "--json", "--tree", "--output", "PATH,TRAN,FSTYPE,MOUNTPOINTS"]
    try:
        done = subprocess.run(argv, capture_output=True, check=True, text=True, timeout=20)
        rows = json.loads(done.stdout)["blockdevices"]
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return []
    parts = [part for row in rows if row["tran"] == "usb" for part in (row, *row.get("children", ()))]
    free = (part for part in parts if part["fstype"] in glance.TYPES and not any(part.get("mountpoints") or []))
    return [(part["path"], part["fstype"]) for part in free]


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
