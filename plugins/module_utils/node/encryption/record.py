# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this node knows of its encrypted volume, and where all of it lies.

`CURRENT` alone decides which data are in use: of the directories that it lists the encrypted ones, of all others the
plain ones. It is a link to a folder with that list and with what systemd is told, and is exchanged by one rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .. import files, ledger, store
from ..files import Busy, NodeError, Root
from ..machine import system_layout

FOLDER = "/etc/kos/encryption"
RECORD = f"{FOLDER}/volume.json"
CURRENT = f"{FOLDER}/current"
UNITS, LIST = f"{CURRENT}/units", f"{CURRENT}/directories.json"
# What systemd runs before anything else is mounted; it hands out UNITS.
GENERATOR = "/etc/systemd/system-generators/kos-encryption"
NAME = "kos-encrypted"
DEVICE = f"{system_layout.MAPPER}/{NAME}"
# Where the volume is mounted, and below it what is bound to the places that services know.
VOLUME = "/var/lib/kos-encrypted"
DATA = f"{VOLUME}/data"
# The code that opens the volume: a generation that knows nothing of encryption may be rolled back to.
CODE = f"{files.STATE}/encryption/code"
HEADER = f"{files.STATE}/encryption/volume.luks-header"
LOCK = "/run/kos/encryption.lock"


@dataclass(frozen=True)
class Record:
    """The encrypted volume of this node.

    `target`: the disk, partition or file it was made on, `serial` and `size` (bytes) what it was known by then.
    `uuid`: of the LUKS header, `filesystem` of what is inside. `made`: whether both are there. `plain`: directories
    of which a plain copy lies at its old place, once they are moved. `moved`, `opened`: the boot of the last move, and
    the last in which the volume was opened. `stopped`: systemd units that a run has stopped. `skipped`: directories
    that somebody wants to stay in clear.
    """

    target: str
    uuid: str
    filesystem: str
    file: bool = False
    serial: str = ""
    size: int = 0
    made: bool = False
    plain: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    moved: str = ""
    opened: str = ""

    def put(self, **changed: Any) -> Record:
        """The same with other values."""
        return replace(self, **changed)

    @property
    def device(self) -> str:
        """What cryptsetup opens: a file, or the disk that has this header now, whatever its path."""
        return self.target if self.file else f"/dev/disk/by-uuid/{self.uuid}"


class NotEncrypted(NodeError):
    """This node has no encrypted volume."""


class Locked(NodeError):
    """The data of this node are locked."""


def load(root: Root) -> Record | None:
    """The record; None where no volume was ever begun."""
    data = files.read_json(root.join(RECORD), None)
    known = {entry.name for entry in fields(Record)}
    return None if data is None else Record(**{key: value for key, value in data.items() if key in known})


def require(root: Root) -> Record:
    """As `load`. Raises NotEncrypted."""
    found = load(root)
    if found is None:
        raise NotEncrypted("this node has no encrypted volume: kai encryption apply --target DISK makes one")
    return found


def save(root: Root, record: Record) -> Record:
    """Keep it, on disk when this returns. Raises OSError."""
    files.write_json(root.join(RECORD), asdict(record))
    return record


def in_use(root: Root) -> bool:
    """Whether services use the encrypted data (or would, were they not locked)."""
    return os.path.islink(root.join(CURRENT))


def moved(root: Root) -> list[str]:
    """The directories whose encrypted data are the ones in use."""
    return [str(path) for path in files.read_json(root.join(LIST), [])]


def locked(root: Root) -> bool:
    """Whether the data are in an encrypted volume that is closed."""
    return in_use(root) and not mounted(root, VOLUME)


def require_open(root: Root) -> None:
    """Raises Locked where nothing may be changed, as the data are not there."""
    if locked(root):
        raise Locked("the data of this node are locked: kai encryption unlock opens them")


def mounted(root: Root, path: str, below: bool = False) -> bool:
    """Whether something is mounted at `path` (as the node sees it), or `below` it."""
    lines = (files.read(root.join("/proc/self/mountinfo")) or b"").decode().splitlines()
    if root.path == "/":
        with open("/proc/self/mountinfo", encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    places = [line.split()[4] for line in lines]
    return path in places or (below and any(place.startswith(f"{path}/") for place in places))


def inside(path: str) -> str:
    """Where in the volume the data of `path` lie."""
    return DATA + path


def directories(root: Root) -> list[str]:
    """The data directories of this node that are there: what the ledger and the current generation name."""
    generation = store.current(root)
    rows = [*ledger.load(root).volumes, *(generation.manifest.get("volumes", []) if generation else [])]
    return [path for path in sorted({row["path"] for row in rows}) if os.path.isdir(root.join(path))]


def in_clear(root: Root) -> list[str]:
    """Those of them that are not in the volume, and not left out by name."""
    record = load(root)
    if record is None:
        return directories(root)
    known = {*record.skipped, *moved(root)}
    return [path for path in directories(root) if path not in known]


@contextlib.contextmanager
def alone(root: Root) -> Iterator[None]:
    """Be the only one that works on the volume. Raises Busy where another run does."""
    path = root.join(LOCK)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(
                "another run works on this node's encrypted volume: wait for it to end, then run again"
            ) from error
        yield
