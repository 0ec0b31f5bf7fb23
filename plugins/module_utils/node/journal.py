# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The write-ahead journal of one transaction: what is about to be done is on disk before it is done.

Space for going back is set aside at the start: a disk that fills up in between cannot forbid the return.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import Any

from . import files, originals
from .files import Root

DIRECTORY = "transaction"
# As many files and bytes as going back may need: originals, dpkg's own records, a few more lines here.
RESERVE_FILES = 16
RESERVE_BYTES = 16 * 2**20
# The records after which a transaction waits for its controller; after any other, somebody was at work on it.
_AT_REST = ("begin", "switched")


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
        self._reserve = os.path.join(self._folder, "reserve")
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

    @property
    def at_rest(self) -> bool:
        """Whether the last step ended; one that was cut short leaves nobody to go on with it."""
        return self.records[-1]["op"] in _AT_REST

    def seconds_idle(self) -> float:
        """Seconds since the last record was written; endless when the machine has been started anew since."""
        if self.begin["boot"] != boot_id():
            return float("inf")
        return uptime() - float(self.records[-1]["at"])

    def start(self, **record: Any) -> None:
        """Open a transaction, dropping the remains of one that had only staged. Raises OSError where space lacks."""
        self.close()
        files.make_directory(self._folder)
        os.chmod(self._folder, 0o700)
        os.mkdir(self.originals, mode=0o700)
        try:
            self._set_aside()
            self.write("begin", boot=boot_id(), **record)
            # The file's own name must be as durable as its lines.
            files.sync_directory(self._path)
        except OSError:
            self.close()
            raise

    def _set_aside(self) -> None:
        os.mkdir(self._reserve, mode=0o700)
        for number in range(RESERVE_FILES):
            descriptor = os.open(os.path.join(self._reserve, str(number)), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES // RESERVE_FILES)
            finally:
                os.close(descriptor)

    def free_reserve(self) -> None:
        """Give back the space that was set aside: the transaction is about to end."""
        shutil.rmtree(self._reserve, ignore_errors=True)

    def write(self, op: str, **record: Any) -> None:
        """Append a record; it is on disk, whole, when this returns. Raises OSError, and then nothing was appended."""
        row = {"op": op, "at": round(uptime(), 2), **record}
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            length = os.fstat(descriptor).st_size
            try:
                self._append(descriptor, (json.dumps(row) + "\n").encode())
            except OSError:
                # Half a line here would spoil the next one too.
                os.ftruncate(descriptor, length)
                raise
        finally:
            os.close(descriptor)
        self.records.append(row)

    @staticmethod
    def _append(descriptor: int, line: bytes) -> None:
        while line:
            line = line[os.write(descriptor, line) :]
        os.fsync(descriptor)

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
