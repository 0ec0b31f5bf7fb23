# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The write-ahead journal of one transaction: what is about to be done is on disk before it is done."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import Any

from . import files, originals
from .files import Root

DIRECTORY = "transaction"


def uptime() -> float:
    """Seconds since the machine started: a clock that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """What tells this boot of the machine from every other."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


class Journal:
    """The records of the open transaction, oldest first, and the originals of the files it touched."""

    def __init__(self, root: Root) -> None:
        self._folder = root.state(DIRECTORY)
        self._path = os.path.join(self._folder, "journal")
        self.records: list[dict[str, Any]] = []
        content = files.read(self._path) or b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            # The last line was cut by a crash: what it announced has not begun.
            os.truncate(self._path, len(whole))
        self.records += [json.loads(line) for line in whole.splitlines()]

    @property
    def open(self) -> bool:
        """Whether a transaction has begun and neither committed nor gone back."""
        return bool(self.records)

    @property
    def begin(self) -> dict[str, Any]:
        """The first record: token, generation, previous, node."""
        return self.records[0]

    @property
    def switched(self) -> bool:
        """Whether anything of the node has been touched."""
        return any(record["op"] != "begin" for record in self.records)

    def seconds_idle(self) -> float:
        """Seconds since the last record was written; endless when the machine has been started anew since."""
        if self.begin["boot"] != boot_id():
            return float("inf")
        return uptime() - float(self.records[-1]["at"])

    def start(self, **record: Any) -> None:
        """Open a transaction, dropping the remains of one that had only staged."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.makedirs(self.originals, mode=0o700)
        os.chmod(self._folder, 0o700)
        self.records = []
        self.write("begin", boot=boot_id(), **record)

    def write(self, op: str, **record: Any) -> None:
        """Append a record; it is on disk when this returns."""
        row = {"op": op, "at": round(uptime(), 2), **record}
        self.records.append(row)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, (json.dumps(row) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def has(self, op: str, **match: Any) -> bool:
        """Whether a record `op` with these values was written."""
        return any(
            record["op"] == op and all(record.get(key) == value for key, value in match.items())
            for record in self.records
        )

    @property
    def originals(self) -> str:
        """The folder with the content of the files that the transaction touched, as it was before."""
        return os.path.join(self._folder, "originals")

    def of(self, op: str) -> list[dict[str, Any]]:
        """The records `op`, oldest first."""
        return [record for record in self.records if record["op"] == op]

    def keep_original(self, root: Root, path: str) -> None:
        """Record `path` as it is now, once per transaction, so that `restore` can bring it back."""
        if not self.has("file", path=path):
            self.write("file", **originals.record(root, path, self.originals, str(len(self.records))))

    def restore(self, root: Root, record: dict[str, Any]) -> None:
        """Bring back the file of a ``file`` record."""
        originals.restore(root, record, self.originals)

    def close(self) -> None:
        """Forget the transaction: it has been committed or taken back."""
        # The journal goes first, in one step: without it the rest is only litter.
        files.remove(self._path)
        shutil.rmtree(self._folder, ignore_errors=True)
        self.records = []
