# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop a node's process exactly between two steps of its journal, with no help from the code under test.

The kernel (fanotify) asks us before any process of the node opens a file or a directory, and lets it wait for our
answer. The process that works on a transaction is the one that opens the journal; how far it has come is what the
journal says. So "after record 7" means: record 7 is on disk, and the next file has not been opened yet.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import struct
import threading
import time
from pathlib import Path

from ansible_collections.kind.kos.lab import cgroup, nspawn
from ansible_collections.kind.kos.lab.errors import LabError

JOURNAL = "/var/lib/kos/transaction/journal"
_CLASS_CONTENT, _CLOEXEC = 0x04, 0x01
_MARK_ADD, _MARK_MOUNT, _OPEN_PERM, _DIRECTORIES = 0x01, 0x10, 0x10000, 0x40000000
_CURRENT_FOLDER = -100
_EVENT = struct.Struct("=IBBHQii")
_ALLOW = 1
# What a step of the node's core opens: the file it is about to write, and the directory of a name it has changed.
_WRITTEN = (".kos-new",)
_OWN_FOLDERS = ("/etc", "/var/lib/kos")
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Breakpoint:
    """Watches one node. `after` says where to stop: a number of records, or the word of the last one (``reverting``);
    without it, it only listens. With `steps`, at the so many-th write or changed name after that.

    `stop` is called there with the process group; by default it is killed. Afterwards: `hit` (whether it stopped),
    `records` (the longest journal seen), `steps` (the names written and changed after its last record).
    """

    def __init__(self, lab, name, after=None, steps=0, stop=None):
        self._lab, self._name = lab, name
        self._after, self._steps = after, steps
        self._stop = stop or (lambda group: os.killpg(group, signal.SIGKILL))
        self._worker = None
        self._reached = threading.Event()
        self.records = []
        self.steps = []

    @property
    def hit(self):
        return self._reached.is_set()

    def __enter__(self):
        self._fanotify = _checked(_libc.fanotify_init(_CLASS_CONTENT | _CLOEXEC, os.O_RDONLY | os.O_CLOEXEC))
        root = f"/proc/{self._leader()}/root"
        self._journal = f"{self._below_the_overlay()}{JOURNAL}"
        mask = ctypes.c_uint64(_OPEN_PERM | _DIRECTORIES)
        _checked(_libc.fanotify_mark(self._fanotify, _MARK_ADD | _MARK_MOUNT, mask, _CURRENT_FOLDER, root.encode()))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._ended.set()
        self._thread.join()
        # Whoever still waits is let through by the kernel.
        os.close(self._fanotify)

    def _leader(self):
        """The node's first process; waits for a node that is being switched on."""
        end = time.monotonic() + 90
        while True:
            try:
                return nspawn.leader(self._lab, self._name)
            except LabError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def _below_the_overlay(self):
        """The node's disk by another mount than its own, where what we open asks nobody."""
        keepers = cgroup.path(f"{self._lab.node_cgroup(self._name)}/boot/cgroup.procs").read_text().split()
        return Path(f"/proc/{keepers[0]}/root{self._lab.node_var(self._name)}/upper")

    def _listen(self):
        poll = select.poll()
        poll.register(self._fanotify, select.POLLIN)
        while not self._ended.is_set():
            if poll.poll(50):
                self._answer(os.read(self._fanotify, 16384))

    def _answer(self, events):
        for offset in range(0, len(events), _EVENT.size):
            _length, _version, _reserved, _size, _mask, descriptor, pid = _EVENT.unpack_from(events, offset)
            try:
                if not self.hit:
                    self._judge(pid, os.readlink(f"/proc/self/fd/{descriptor}"))
            finally:
                os.write(self._fanotify, struct.pack("=iI", descriptor, _ALLOW))
                os.close(descriptor)

    def _judge(self, pid, path):
        with contextlib.suppress(ProcessLookupError):
            group = os.getpgid(pid)
            if path == JOURNAL:
                self._worker = group
            if group != self._worker:
                return
            records = self._read_journal()
            if len(records) > len(self.records):
                self.records, self.steps = records, []
            if path.endswith(_WRITTEN) or self._own_folder(path):
                self.steps.append(path)
            # Once the journal is closed, what it said last still tells where the process is.
            if self._due(records or self.records):
                self._reached.set()
                self._stop(group)

    def _own_folder(self, path):
        # Folders of the store are opened to be read.
        if not path.startswith(_OWN_FOLDERS) or path.startswith("/var/lib/kos/generations"):
            return False
        return os.path.isdir(self._journal.removesuffix(JOURNAL) + path)

    def _due(self, records):
        if not records or self._after is None:
            return False
        here = records[-1]["op"] if isinstance(self._after, str) else len(records)
        if here == self._after:
            return len(self.steps) >= self._steps
        return isinstance(self._after, int) and len(records) > self._after

    def _read_journal(self):
        try:
            content = Path(self._journal).read_bytes()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def spoken(record):
    """A record in the words of the table."""
    return " ".join(
        str(word)
        for word in (record["op"], record.get("path", record.get("name", record.get("part"))))
        if word and not str(word).startswith("kos-deadline-")
    )
