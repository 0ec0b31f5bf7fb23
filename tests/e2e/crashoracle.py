# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk with a crashed install is worth, found out on the outside: decrypted and read by Debian's own tools.

A disk that firmware starts has to be complete; one that it does not start needs a journal that tells the truth, or
nothing was begun. What lies in between is a fault, and named.
"""

from __future__ import annotations

import hashlib

from crashtools import HEADER, Broken, Region, Tools, digests

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names
from ansible_collections.kind.kos.plugins.plugin_utils import partition_table
from kos_install.engine import journal

LOADER, ENTRY = "EFI/BOOT/BOOTX64.EFI", "loader/entries/kos-1.conf"
# All that is there before anything starts: what comes later is for repairs.
STAGED = (LOADER, ENTRY, "EFI/BOOT/grubx64.efi", "kos/1/linux", "kos/1/initrd")
# What starts: a program, and an entry whose first line counts (both get their first byte last).
_PROGRAM = b"MZ"
COMPLETE, RESUMABLE, NOTHING = "complete, and starts", "does not start, and resumes", "nothing begun"
STARTS = "it starts, and is not complete"


def region(plan, label):
    """The partition with this label, as a plan has it."""
    rows = [one for action in plan.actions if action.kind == "table" for one in action.make if one.label == label]
    return Region(rows[0].start, rows[0].start + rows[0].size)


class Oracle(Tools):
    """Judges states of one recorded disk, with the `Tools` of a tree."""

    def __init__(self, tree, work, disk, plan, passphrase, expected):
        super().__init__(tree, work)
        self.disk, self.plan = disk, plan
        self.passphrase, self.expected = passphrase, expected
        self.regions = {label: region(plan, label) for label in (names.ESP, names.JOURNAL, names.ROOT)}
        self._known = {}
        # Whether the system is read to its last byte where the disk does not start; it takes a second a state.
        self.reads_all = True
        # The disk has taken, for good, that all of the plan is done: the journal may go.
        self.finished = False

    def secrets_of(self, disk):
        """The LUKS header and the volume key of a finished disk."""
        return self.luks_secrets(disk, self.regions[names.ROOT], self.passphrase)

    def records(self, file):
        """How far the journal of a disk has come."""
        found = self._journal(file) if self._partitioned(file) else None
        return len(found.records) if found else 0

    def phase(self, file):
        """The kind of the action that a disk was in the middle of; empty where that is not known."""
        try:
            found = self._journal(file) if self._partitioned(file) else None
        except Broken:
            return ""
        newest = found.records[-1] if found and found.records else None
        if newest is None or newest.state != "started":
            return ""
        return next(one.kind for one in self.plan.actions if one.id == newest.action)

    def durable(self, file):
        """The records of a disk that has taken all so far."""
        found = self._journal(file) if self._partitioned(file) else None
        self.finished = self.finished or (found is not None and found.finished)
        return 0 if self.finished else len(found.records) if found else 0

    def judge(self, file, clear, touched, least):
        """COMPLETE, RESUMABLE or NOTHING. `touched(start, end)` identifies what a region holds. Raises Broken.

        `least`: so many records the disk had taken for good.
        """
        if self.records(file) < least:
            raise Broken(f"the journal has lost some of its {least} records")
        if self._starts(file, touched):
            try:
                self._must_be_complete(file, clear, touched)
            except Broken as error:
                raise Broken(f"{STARTS}: {error}") from error
            return COMPLETE
        if not self._partitioned(file):
            return NOTHING
        found = self._journal(file)
        if found is None:
            return NOTHING
        for action in self.plan.actions:
            if found.done(action) and (self.reads_all or action.kind not in ("btrfs", "unpack")):
                self._must_stand(action, file, clear, touched)
        return RESUMABLE

    def _partitioned(self, file):
        with file.open("rb") as stream:
            head = stream.read(partition_table.HEAD)
        try:
            rows = partition_table.read(head).partitions
        except partition_table.NoTable:
            return False
        [table] = [action for action in self.plan.actions if action.kind == "table"]
        return {(one.id, one.start, one.size) for one in rows} == {
            (one.uuid, one.start, one.size) for one in table.make
        }

    def _journal(self, file):
        copy = self.work / "journal"
        self.slice(file, self.regions[names.JOURNAL], copy)
        try:
            found = journal.read(copy)
        except journal.NoJournal:
            return None
        if found.plan != self.plan:
            raise Broken("the journal has another plan")
        return found

    def _starts(self, file, touched):
        """Whether firmware would find a program: a table, a FAT, a loader that is one."""
        where = self.regions[names.ESP]
        return self._partitioned(file) and self._once(
            "loader", touched(where.start, where.end), lambda: self._esp_file(file, LOADER)[:2] == _PROGRAM
        )

    def _esp_file(self, file, name):
        at = f"{self.inside(file)}@@{self.regions[names.ESP].start}"
        return self.tool("mtype", "-i", at, f"::/{name}", check=False).stdout

    def _must_be_complete(self, file, clear, touched):
        found = self._journal(file)
        verified = [action for action in self.plan.actions if action.kind in ("boot", "verify")]
        said = all(found.done(action) for action in verified) if found else self.finished
        if not said:
            raise Broken("the journal does not say that it was verified")
        for action in self.plan.actions:
            if action.kind in ("luks", "fat"):
                self._must_stand(action, file, clear, touched)
        files = self.expected.get("complete") or self.expected["root"]
        self._once_good("root", touched, self.regions[names.ROOT], lambda: self._whole_root(clear, files))
        self._once_good("esp", touched, self.regions[names.ESP], lambda: self._whole_esp(file))

    def _must_stand(self, action, file, clear, touched):
        root, esp = self.regions[names.ROOT], self.regions[names.ESP]
        if action.kind == "luks":
            head = Region(root.start, root.start + HEADER)
            self._once_good("luks", touched, head, lambda: self._opens(file))
        elif action.kind in ("btrfs", "unpack"):
            files = self.expected["root"] if action.kind == "unpack" else {}
            self._once_good(action.kind, touched, root, lambda: self._whole_root(clear, files))
        elif action.kind == "fat":
            self._once_good("fat", touched, esp, lambda: self._good_fat(file))
        elif action.kind == "boot":
            self._once_good("staged", touched, esp, lambda: self._staged(file))

    def _opens(self, file):
        header = self.work / "header"
        self.slice(file, self.regions[names.ROOT], header, HEADER)
        test = ["cryptsetup", "open", "--test-passphrase", "--key-file=-", self.inside(header)]
        self.tool(*test, stdin=self.passphrase.encode())

    def _good_fat(self, file):
        at = f"{self.inside(file)}@@{self.regions[names.ESP].start}"
        self.tool("mdir", "-b", "-i", at, "::/")

    def _whole_root(self, clear, files):
        """btrfs proves itself, data and all; then what it holds is compared with what was unpacked."""
        self.tool("btrfs", "check", "--readonly", "--check-data-csum", self.inside(clear))
        if not files:
            return
        found = self.restored(clear)
        wrong = sorted(name for name, digest in files.items() if found.get(name) != digest)
        if wrong:
            raise Broken(f"{len(wrong)} files of the system are not whole, the first {wrong[0]}")

    def restored(self, clear):
        """Every file of a btrfs, read without a kernel."""
        out = self.emptied("root")
        self.tool("btrfs", "restore", "--metadata", "--symlink", self.inside(clear), self.inside(out))
        return digests(out)

    def esp(self, file):
        """Every file of the firmware's partition; the first bytes, which start them, do not count."""
        out = self.emptied("esp")
        at = f"{self.inside(file)}@@{self.regions[names.ESP].start}"
        self.tool("mcopy", "-s", "-n", "-Q", "-i", at, "::/", self.inside(out))
        return digests(out, masked=True)

    def _staged(self, file):
        """All that starting needs is there, whole; the bytes that start it may lack.

        Each file is read by itself, as firmware does: mtools gives up a whole copy at one that is half written.
        """
        for name, digest in self.expected["esp"].items():
            if hashlib.sha256(self._esp_file(file, name)[1:]).hexdigest() != digest:
                raise Broken(f"{name} of the firmware's partition is not whole")

    def _whole_esp(self, file):
        self._staged(file)
        if self._esp_file(file, ENTRY)[:1] != b" ":
            raise Broken("the loader starts, and finds no entry")

    def _once_good(self, what, touched, where, check):
        def checked():
            try:
                check()
            except Broken as error:
                return str(error)
            return ""

        fault = self._once(what, touched(where.start, where.end), checked)
        if fault:
            raise Broken(f"{what}: {fault}")

    def _once(self, what, version, check):
        """The answer of a check, which is asked but once for the same content."""
        if (what, version) not in self._known:
            self._known[what, version] = check()
        return self._known[what, version]
