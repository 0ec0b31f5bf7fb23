# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of an install, in a partition of its own: what is to be done, what was begun, what is done.

It is a row of blocks that are only ever appended. The first ones hold the header: the plan, the answers (which know no
secret; the hash of a password is left out, too) and an id that this install shares with no other. Then every record has
a block. Each has a checksum, and is on the disk, whole, before anything else happens; one that a power cut tore is
skipped, never written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import secrets
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..answers import Answers
from ..errors import ApplyFailed
from ..storage.actions import Action, Plan, digest_of

# No disk writes less than its sector, and none has larger ones.
BLOCK = 4096
_MAGIC = b"kOSjrnl1"
# magic, id of the install, number of the block's content, length of the content, its SHA-256 with all of the former
_HEAD = struct.Struct("<8s16sII32s")
_ROOM = BLOCK - _HEAD.size
# The header may take half: a record needs a block, and an install has some dozens.
_LONGEST_HEADER = 128
VERSION = 1
# Of the one block that a finished install leaves: which answers it was.
_MARK = b"kOSdone1"

State = Literal["started", "done"]


class NoJournal(Exception):
    """There is none that can be read: nothing of this installer's was begun here."""


class JournalFull(ApplyFailed):
    """It was resumed too often."""


@dataclass(frozen=True)
class Record:
    """A line: which action (`digest` is of all that it was asked) was begun, or is done; `facts` are what it found."""

    number: int
    action: str
    digest: str
    state: State
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Journal:
    """An open journal. `records` are those on the disk, in order."""

    device: Path
    install: bytes
    plan: Plan
    answers: Answers
    image: str  # the root hash of the medium that it was begun from
    records: list[Record]
    _next: int  # the first block that nothing was ever written to

    def done(self, action: Action) -> bool:
        """Whether this very action is done: the newest record of it says so."""
        newest = next((record for record in reversed(self.records) if record.action == action.id), None)
        return newest is not None and newest.state == "done" and newest.digest == digest_of(action)

    @property
    def finished(self) -> bool:
        """Whether all of its plan is done: there is nothing to resume."""
        return all(self.done(action) for action in self.plan.actions)

    def append(self, action: Action, state: State, facts: Mapping[str, Any] | None = None) -> None:
        """Write a record; it is on the disk when this returns. Raises JournalFull, OSError."""
        number = len(self.records)
        record = Record(number, action.id, digest_of(action), state, dict(facts or {}))
        payload = _payload([record.action, record.digest, record.state, record.facts])
        if len(payload) > _ROOM:
            raise ValueError(f"the facts of {action.id} do not fit into a record")
        with _opened(self.device) as descriptor:
            if (self._next + 1) * BLOCK > _size(descriptor):
                raise JournalFull(f"the journal in {self.device} is full: begin a new install instead of resuming")
            # What was torn here before stays as it is; a failed write may have reached the disk all the same.
            at, self._next = self._next, self._next + 1
            _write(descriptor, at, [_block(self.install, number, payload)])
        self.records.append(record)


def begin(device: Path, plan: Plan, answers: Answers, done: Iterable[Action] = (), image: str = "") -> Journal:
    """Begin a journal where none is, with what was done before there could be one. Raises ApplyFailed, OSError."""
    blocks = header(plan, answers, done, image)
    with _opened(device) as descriptor:
        # Whatever lies there from before must not look like a record.
        _clear(descriptor)
        # Never before what it describes: whoever finds the first block may rely on the others.
        _write(descriptor, 1, blocks[1:])
        _write(descriptor, 0, blocks[:1])
    return read(device)


def header(plan: Plan, answers: Answers, done: Iterable[Action], image: str = "") -> list[bytes]:
    """The first blocks of a new journal. Raises ApplyFailed for answers that are too long to be kept."""
    install = secrets.token_bytes(16)
    content = {
        "version": VERSION,
        "plan": plan.model_dump(mode="json"),
        # The partition is not encrypted.
        "answers": answers.forgetful().model_dump(mode="json"),
        "done": [[action.id, digest_of(action)] for action in done],
        "image": image,
    }
    text = _payload(content)
    pieces = [text[at : at + _ROOM] for at in range(0, len(text), _ROOM)]
    if len(pieces) > _LONGEST_HEADER:
        raise ApplyFailed("the answers are too long to be kept: shorten settings, or the list of keys")
    # Each knows how many there are, so that a header lacks none: by the first one's place in it.
    return [_block(install, len(pieces) - index, piece) for index, piece in enumerate(pieces)]


def read(device: Path) -> Journal:
    """The journal of a partition. Raises NoJournal, OSError."""
    with device.open("rb", buffering=0) as stream:
        blocks = list(iter(lambda: _whole_read(stream.fileno()), b""))
    install, count, first = _parse(blocks[0]) if blocks else (b"", 0, None)
    if first is None or not 0 < count <= min(_LONGEST_HEADER, len(blocks)):
        raise NoJournal(f"{device} has no journal")
    text = first
    for index in range(1, count):
        whose, number, piece = _parse(blocks[index])
        if piece is None or (whose, number) != (install, count - index):
            raise NoJournal(f"the journal in {device} was never whole")
        text += piece
    return _records(device, install, json.loads(text), count, blocks)


def erase(device: Path) -> None:
    """Leave nothing of a journal: its install is over, or given up. Raises OSError."""
    with _opened(device) as descriptor:
        _clear(descriptor)


def finish(journal: Journal) -> None:
    """Leave nothing of a journal whose install is done but which answers it was, so that nobody repeats it unasked.

    Raises OSError.
    """
    payload = journal.answers.digest().encode()
    head = _HEAD.pack(_MARK, journal.install, 0, len(payload), _sum(journal.install, 0, payload))
    with _opened(journal.device) as descriptor:
        # In place of the header: from here on nobody reads the other blocks.
        _write(descriptor, 0, [(head + payload).ljust(BLOCK, b"\0")])
        _clear_from(descriptor, 1)


def finished_by(device: Path) -> str:
    """The digest of the answers that an install was made by which ended well; empty where none did. Raises OSError.

    One that ended well, and had no time to say so by its mark, did.
    """
    with device.open("rb", buffering=0) as stream:
        block = _whole_read(stream.fileno())
    if len(block) != BLOCK:
        return ""
    magic, install, number, length, checksum = _HEAD.unpack_from(block)
    payload = block[_HEAD.size : _HEAD.size + length]
    good = magic == _MARK and length <= _ROOM and _sum(install, number, payload) == checksum
    if good:
        return payload.decode()
    try:
        journal = read(device)
    except NoJournal:
        return ""
    return journal.answers.digest() if journal.finished else ""


def _records(device: Path, install: bytes, head: Any, count: int, blocks: list[bytes]) -> Journal:
    if head["version"] != VERSION:
        raise NoJournal(f"the journal in {device} is of another version of the installer ({head['version']})")
    # As JSON: a strict model takes no list of Python's where it has a tuple.
    try:
        plan = Plan.model_validate_json(json.dumps(head["plan"]))
        answers = Answers.model_validate_json(json.dumps(head["answers"]))
    except ValueError as error:
        raise NoJournal(f"the journal in {device} is of another version of the installer") from error
    records = [Record(number, name, digest, "done") for number, (name, digest) in enumerate(head["done"])]
    behind = count
    for index in range(count, len(blocks)):
        whose, number, piece = _parse(blocks[index])
        if any(blocks[index]):
            behind = index + 1
        if piece is not None and (whose, number) == (install, len(records)):
            action, digest, state, facts = json.loads(piece)
            records.append(Record(number, action, digest, state, facts))
    return Journal(device, install, plan, answers, head.get("image", ""), records, behind)


def _payload(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


def _block(install: bytes, number: int, payload: bytes) -> bytes:
    head = _HEAD.pack(_MAGIC, install, number, len(payload), _sum(install, number, payload))
    return (head + payload).ljust(BLOCK, b"\0")


def _sum(install: bytes, number: int, payload: bytes) -> bytes:
    return hashlib.sha256(_HEAD.pack(_MAGIC, install, number, len(payload), bytes(32)) + payload).digest()


def _parse(block: bytes) -> tuple[bytes, int, bytes | None]:
    """Whose, which number, and the content; None for a block that is not one, or not whole."""
    if len(block) != BLOCK:
        return b"", 0, None
    magic, install, number, length, checksum = _HEAD.unpack_from(block)
    payload = block[_HEAD.size : _HEAD.size + length]
    good = magic == _MAGIC and length <= _ROOM and _sum(install, number, payload) == checksum
    return install, number, payload if good else None


@contextlib.contextmanager
def _opened(device: Path) -> Iterator[int]:
    """To write past every cache; a file, in a test, has no such way."""
    mode = os.stat(device).st_mode
    direct = os.O_DIRECT if stat.S_ISBLK(mode) else 0
    descriptor = os.open(device, os.O_RDWR | os.O_SYNC | os.O_CLOEXEC | direct)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _clear(descriptor: int) -> None:
    # The first block alone, first: without it nobody reads the others.
    _write(descriptor, 0, [bytes(BLOCK)])
    _clear_from(descriptor, 1)


def _clear_from(descriptor: int, at: int) -> None:
    _write(descriptor, at, [bytes(BLOCK)] * (_size(descriptor) // BLOCK - at))


def _write(descriptor: int, at: int, blocks: list[bytes]) -> None:
    if not blocks:
        return
    with mmap.mmap(-1, len(blocks) * BLOCK) as aligned:
        aligned.write(b"".join(blocks))
        if os.pwritev(descriptor, [aligned], at * BLOCK) != len(aligned):
            raise OSError("the journal took only a part of a record")
    os.fsync(descriptor)


def _whole_read(descriptor: int) -> bytes:
    return os.read(descriptor, BLOCK)


def _size(descriptor: int) -> int:
    return os.lseek(descriptor, 0, os.SEEK_END)
