# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power cuts while a node's data move into an encrypted volume: recorded once, each state judged and gone on with.

What a crashed disk holds is read on the outside by e2fsck and debugfs, with OpenSSL between: no code of the node's own.
"""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
import time
from dataclasses import dataclass
from pathlib import Path

import crashphases
import crashstates
import diskmachine
import diskmarks
import diskmove
import sparse
from crashclear import Clear
from crashtools import Broken, Region, Tools

from ansible_collections.kind.kos.plugins.module_utils.node.encryption import record as names

MEMORY = 768
PLAIN, ENCRYPTED = "plain data in force", "encrypted data in force"
DISCARDING = "discarding"
# The program that begins each phase; what else is run belongs to the phase before.
PHASES = {
    diskmarks.BEGUN: "choosing the disk", "wipefs --all": "header and file system", "rsync --archive": "copies",
    "systemctl stop": "the stop", names.CURRENT: "in force", "dmsetup table": "proof", "mount --bind": DISCARDING,
}  # fmt: skip
# Where a machine is really killed.
CUTS = ("wipefs --all", "rsync --archive", "systemctl stop", names.CURRENT, "mount --bind")
# They have more of the crashes than the copies, which write most.
_DECIDE = ("the stop", "in force", DISCARDING)
_NODE, _SPARE = Region(*diskmove.NODE), Region(*diskmove.SPARE)


@dataclass(frozen=True)
class Moved:
    """A recorded move: what was written and what began when, and the disk as it ended."""

    phases: crashphases.Phases
    disk: Path

    def has_late(self, state):
        """Whether the data that came after the first move were on the disk for good."""
        return state.epoch >= self.phases.epoch_of(diskmove.SAVED)


@dataclass(frozen=True)
class Seen:
    """What a disk has in force: whether that is encrypted, and how many notes; `fault` where it is not whole."""

    in_use: bool
    notes: int
    fault: str = ""

    @property
    def what(self):
        """In a word."""
        return ENCRYPTED if self.in_use else PLAIN


class Reader(Tools):
    """Reads the data of a node off its disk; what it has read of one version of a region it knows."""

    def __init__(self, tree, work):
        super().__init__(tree, work)
        self._known = {}

    def seen(self, file, clear, late, touched=None):
        """What is in force on a disk. `clear`: what its volume holds; `late`: whether those data must be there."""
        try:
            node = self._once("node", touched, _NODE, lambda: self._read(self._region(file), "/etc", "/var/lib"))
            listed = _listed(node)
            volume = self._once("volume", touched, _SPARE, lambda: self._read(clear, "/data")) if listed else {}
            notes = _notes(_tree(node, volume, listed, diskmove.NOTES).get("log"))
        except Broken as error:
            return Seen(False, 0, str(error))
        for folder in (diskmove.FILES, *([diskmove.LATE] if late else [])):
            found, wanted = _tree(node, volume, listed, folder), diskmove.content(folder)
            wrong = sorted(name for name, data in wanted.items() if found.get(name) != data)
            if wrong or len(found) != len(wanted):
                where = ENCRYPTED if folder in listed else PLAIN
                return Seen(bool(listed), notes, f"{where}: {folder} has {len(wrong)} of {len(wanted)} files wrong")
        return Seen(bool(listed), notes)

    def at_the_end(self, file, discarded):
        """What is in force where a move has come to its end: all of it in the volume, and no plain copies where they
        were `discarded`. Raises Broken."""
        found = self.at_rest(file, late=discarded)
        node = self._read(self._region(file), "/etc", "/var/lib")
        listed = _listed(node)
        plain = [name for path in listed for name in _tree(node, {}, [], path)] if discarded else []
        if plain:
            raise Broken(f"{plain[0]} lies there in clear")
        if found.fault or not {diskmove.NOTES, diskmove.FILES} <= set(listed):
            raise Broken(found.fault or f"in the volume are only {', '.join(listed) or 'none'}")
        return found

    def at_rest(self, file, late):
        """What is in force on a disk that nobody replays; `late`: whether data must be there that came later."""
        if _listed(self._read(self._region(file), "/etc")):
            clear = self.clear(file)
            with file.open("rb") as source:
                for at, content in sparse.pieces(source, _SPARE.start, _SPARE.end):
                    clear.put(at, content)
        return self.seen(file, self.work / "clear", late)

    def clear(self, disk):
        """What keeps the volume of a disk in clear, with the key that it has now."""
        return Clear(self.work / "clear", _SPARE, *self.luks_secrets(disk, _SPARE, diskmove.PASSPHRASE))

    def _region(self, file):
        image = self.work / "node"
        with file.open("rb") as source, image.open("wb") as sink:
            sparse.copy(source, _NODE.start, _NODE.end, sink, 0)
            sink.truncate(_NODE.end - _NODE.start)
        return image

    def _read(self, image, *folders):
        """Every file and link of an ext4 below some folders. Raises Broken."""
        copy, out = self.work / "image", self.emptied("files")
        with image.open("rb") as source, copy.open("wb") as sink:
            sparse.copy(source, 0, image.stat().st_size, sink, 0)
            sink.truncate(image.stat().st_size)
        self.lay_out(copy, out, *folders)
        found = {}
        for path in out.rglob("*"):
            name = str(path.relative_to(out))
            if path.is_symlink():
                found[name] = str(path.readlink())
            elif path.is_file():
                found[name] = path.read_bytes()
        return found

    def _once(self, what, touched, where, read):
        if touched is None:
            return read()
        version = what, touched(where.start, where.end)
        if version not in self._known:
            self._known[version] = read()
        return self._known[version]


def _listed(node):
    """The directories of which the encrypted data are in force."""
    link = node.get(names.CURRENT.lstrip("/"))
    if link is None:
        return []
    text = node.get(f"{names.FOLDER}/{link}/{names.LIST.rpartition('/')[2]}".lstrip("/"))
    if text is None:
        raise Broken("what is in force has no list of directories")
    return json.loads(text)


def _tree(node, volume, listed, folder):
    """The files of a directory, where its data are in force; debugfs leaves the first folders of a path out."""
    top = f"data{folder}/" if folder in listed else f"lib{folder.removeprefix('/var/lib')}/"
    found = volume if folder in listed else node
    return {name.removeprefix(top): data for name, data in found.items() if name.startswith(top)}


def _notes(log):
    """How many notes there are. Raises Broken where one is not whole."""
    if log is None:
        raise Broken("the notes are gone")
    lines = log.decode(errors="replace").splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if line != f"note {number}"]
    if wrong or (log and not log.endswith(b"\n")):
        raise Broken(f"note {wrong[0] if wrong else len(lines)} is not whole")
    return len(lines)


def record(media, folder, sabotage=""):
    """A move that was recorded from its beginning to its end."""
    disk, log = folder / "disk", folder / "log"
    disks = [diskmachine.Disk(disk, diskmarks.SERIAL, diskmove.SIZE, log)]
    with diskmachine.booted(media.lab, media.apt, disks, memory=MEMORY) as machine:
        _said, text, code = machine.call("diskmove", {"verb": "record", "sabotage": sabotage})
        assert code == 0, text[-3000:]
        machine.run("sync; sleep 1")
    return Moved(crashphases.read(crashstates.read(log), *diskmove.MARKS, PHASES), disk)


def cut(media, disk, mark, after):
    """Move a node's data and kill its machine so many seconds `after` a mark; the marks that its disk has by then.

    What its memory alone had is lost.
    """
    disks = [diskmachine.Disk(disk, diskmarks.SERIAL, diskmove.SIZE)]
    with diskmachine.booted(media.lab, media.apt, disks, memory=MEMORY) as machine:
        machine.begin("diskmove", {"verb": "record"})
        until = time.monotonic() + 3 * diskmachine.PATIENCE
        while mark not in _marks(disk):
            assert time.monotonic() < until, f"{mark} did not begin"
            time.sleep(0.01)
        time.sleep(after)
    return _marks(disk)


def _marks(disk):
    """What has begun on a disk that a machine works on."""
    start, end = diskmove.MARKS
    with disk.open("rb") as stream:
        stream.seek(start)
        blocks = stream.read(end - start)
    found = [blocks[at : at + mmap.PAGESIZE].rstrip(b"\0").decode() for at in range(0, len(blocks), mmap.PAGESIZE)]
    return [text for text in found if text]


def judged(title, moved, tree, work, number, seed):
    """Judge `number` crashes of a recorded move; gives the table, and each state as it is met with its disk."""
    phases, recording = moved.phases, moved.phases.recording
    table, reader = crashphases.Table(title, phases), Reader(tree, work)
    file = work / "replayed"
    replayed = crashstates.Disk(recording, file, diskmove.SIZE, reader.clear(moved.disk))
    durable = 0
    for state in crashstates.states(recording, number, seed, lambda index: phases.weight(index, _DECIDE)):
        undo = replayed.apply(state)
        touched = functools.partial(replayed.touched, state)
        found = reader.seen(file, work / "clear", moved.has_late(state), touched)
        table.judged.append((state, found.what))
        if found.fault or found.notes < durable:
            table.fault(state, found.fault or f"{durable} notes were there, {found.notes} are")
        elif state.how == "nothing of it":
            # What an epoch begins with is there for good.
            durable = found.notes
        yield table, state, found, file
        replayed.undo(undo)


class Machine:
    """A machine that goes on with one crashed disk after the other; a new one where the last has failed."""

    def __init__(self, media, disk):
        self._media, self._disk = media, disk
        self._running = contextlib.ExitStack()
        self._machine = None

    def __enter__(self):
        return self

    def __exit__(self, *_raised):
        self._running.close()

    def again(self, crashed, discard):
        """One more run on a copy of a crashed disk, of what was under way then: what it said. Raises Broken."""
        _put(crashed, self._disk)
        if self._machine is None:
            disks = [diskmachine.Disk(self._disk, diskmarks.SERIAL, diskmove.SIZE)]
            booted = diskmachine.booted(self._media.lab, self._media.apt, disks, memory=MEMORY)
            self._machine = self._running.enter_context(booted)
        said, text, code = self._machine.call("diskmove", {"verb": "again", "discard": discard})
        if code:
            self._running.close()
            self._machine = None
            raise Broken(f"one more run failed: {text[-1500:]}")
        return said


def _put(source, target):
    """Make a disk what another is, though a machine that looks away has it."""
    target.touch()
    with source.open("rb") as whole, target.open("r+b") as sink:
        sink.truncate(diskmove.SIZE)
        sparse.punch(sink, 0, diskmove.SIZE)
        sparse.copy(whole, 0, diskmove.SIZE, sink, 0)
