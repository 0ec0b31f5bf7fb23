# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power cuts during backups into a repository on the node's own disk: recorded once, each state gone on with.

No machine is emulated: restic and ext4 need no kernel of their own. The disk is a file that QEMU's storage daemon
exports (FUSE) and records. What a crash left of it is read by e2fsck and debugfs, and backed up once more.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import crashphases
import crashstates
import diskbackup
import diskmachine
import diskmarks
import sparse
from crashtools import Broken, Region, Tools

_PHASES = {
    diskmarks.BEGUN: "beginning", "restic cat": "looking for the repository", "restic unlock": "dropping old locks",
    "restic backup": "storing", "restic forget": "forgetting and pruning",
    **{diskbackup.stored(number): f"stored {number}" for number in diskbackup.DURING},
    diskbackup.SABOTAGED: "sabotaged",
}  # fmt: skip
BROKEN = "BROKEN"
_DECIDE = ("storing", "forgetting and pruning")
_NODE = Region(*diskbackup.NODE)
# ROOT CODE TREE STATE PROGRAM [RECORDED]: Debian's root with the state's folders in it, and nothing of this machine but
# its devices.
_INSIDE = f"""
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$3,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/run"
mkdir -p "$1/root/run/code" "$1/root/etc/kos"
mount --bind "$2" "$1/root/run/code"
for pair in kos:etc/kos lib:var/lib srv:srv; do mount --bind "$4/${{pair%%:*}}" "$1/root/${{pair#*:}}"; done
if [ "$#" -gt 5 ]; then touch "$1/root{diskbackup.RECORDED}"; mount --bind "$6" "$1/root{diskbackup.RECORDED}"; fi
chroot "$1/root" python3 -c "$5"
umount --recursive "$1"
"""
# TOOLS FOLDER INSIDE ROOT CODE TREE PROGRAM: the disk in a folder, as a file that records what is written to it.
_RECORDED = """
tools=$1 folder=$2 inside=$3
mount -t tmpfs tmpfs "$tools/run"
mount -t proc proc "$tools/proc"
mount --rbind /dev "$tools/dev"
mkdir "$tools/run/here"
mount --bind "$folder" "$tools/run/here"
chroot "$tools" qemu-storage-daemon --daemonize --pidfile /run/pid \\
  --blockdev driver=file,node-name=file,filename=/run/here/disk,discard=unmap \\
  --blockdev driver=raw,node-name=raw,file=file \\
  --blockdev driver=file,node-name=logfile,filename=/run/here/log \\
  --blockdev driver=raw,node-name=lograw,file=logfile \\
  --blockdev driver=blklogwrites,node-name=disk,file=raw,log=lograw,log-sector-size=512 \\
  --export type=fuse,id=disk,node-name=disk,mountpoint=/run/here/exported,writable=on
exported=$tools/run/here/exported
mount -o loop "$exported" "$folder/mounted"
mkdir "$folder/mounted/kos" "$folder/mounted/lib" "$folder/mounted/srv"
sh -euc "$inside" sh "$4" "$5" "$6" "$folder/mounted" "$7" "$exported"
umount "$folder/mounted"
kill "$(cat "$tools/run/pid")"
while kill -0 "$(cat "$tools/run/pid")" 2>/dev/null; do sleep 0.1; done
"""
_PROGRAM = """
import json, sys
sys.path[:0] = ["/run/code/tests/e2e", "/run/code/collections"]
import diskbackup
sys.exit(diskbackup.carry_out(json.loads('{asked}')))
"""
# Killed, it leaves no process, no mount and no loop device behind.
_APART = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-euc"]


class Debian(Tools):
    """Runs the node's code in a root of Debian's, on a disk that is recorded or on what is left of one."""

    def __init__(self, tree, work):
        super().__init__(tree, work)
        self._code = work / "code"
        self._code.mkdir()
        subprocess.run(["tar", "-x", "-C", self._code], input=diskmachine.code(), check=True)

    def record(self, tools, folder, sabotage=""):
        """Backups that were recorded: what was written, and what began when. Raises Broken."""
        for name in ("disk", "log", "exported"):
            (folder / name).touch()
        (folder / "mounted").mkdir()
        size = diskbackup.MARKS[1]
        for name in ("disk", "exported"):
            os.truncate(folder / name, size)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", folder / "disk", f"{_NODE.end >> 10}k"], check=True)
        shutil.copyfile(folder / "disk", folder / "before")
        program = _PROGRAM.format(asked=json.dumps({"verb": "record", "sabotage": sabotage}))
        self._apart(_RECORDED, tools, folder, _INSIDE, self.emptied("root"), self._code, self.tree, program)
        recording = crashstates.read(folder / "log")
        return crashphases.read(recording, *diskbackup.MARKS, _PHASES), folder / "before"

    def again(self, disk):
        """What one more backup of a crashed disk comes to. Raises Broken."""
        state, image = self.emptied("state"), self.work / "image"
        with disk.open("rb") as source, image.open("wb") as sink:
            sparse.copy(source, _NODE.start, _NODE.end, sink, 0)
            sink.truncate(_NODE.end - _NODE.start)
        self.lay_out(image, state, "/kos", "/lib", "/srv")
        program = _PROGRAM.format(asked=json.dumps({"verb": "again"}))
        said = self._apart(_INSIDE, self.emptied("root"), self._code, self.tree, state, program)
        return json.loads(said.splitlines()[-1])

    def _apart(self, script, *arguments):
        done = subprocess.run([*_APART, script, "sh", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Broken(f"it failed: {(done.stdout + done.stderr)[-1500:]}")
        return done.stdout


def judged(title, tree, recorded, number, seed, only=()):
    """The table of `number` crashes, each of them gone on with; as many at once as there are processors.

    `only` in these phases, where any are named.
    """
    phases, _before = recorded

    def weight(index):
        if only and phases.of(crashstates.State(index, "")) not in only:
            return 0
        return phases.weight(index, _DECIDE)

    chosen = crashstates.states(phases.recording, number, seed, weight)
    table, share = crashphases.Table(title, phases), -(-len(chosen) // os.cpu_count())
    shares = [chosen[at : at + share] for at in range(0, len(chosen), share)]
    with ThreadPoolExecutor(len(shares)) as pool:
        for rows in pool.map(lambda states: _share(tree, recorded, states), shares):
            for state, what, fault in rows:
                table.judged.append((state, what))
                if fault:
                    table.fault(state, fault)
                else:
                    table.went_on(state, what)
    return table


def _share(tree, recorded, states):
    phases, before = recorded
    with tempfile.TemporaryDirectory(prefix="backups-", dir=tree / "tmp") as name:
        debian, rows = Debian(tree, Path(name)), []
        file = debian.work / "replayed"
        replayed = crashstates.Disk(phases.recording, file, diskbackup.MARKS[1], base=before)
        for state in states:
            undo = replayed.apply(state)
            try:
                rows.append((state, _well(debian.again(file), _stored(phases, state)), ""))
            except Broken as error:
                rows.append((state, BROKEN, str(error)))
            replayed.undo(undo)
            print(f"epoch {state.epoch}, {state.how}: {rows[-1][1]}", flush=True)
    return rows


def _stored(phases, state):
    """The versions whose backup had ended before a crash, oldest first."""
    ended = [number for number in diskbackup.DURING if phases.epoch_of(diskbackup.stored(number)) <= state.epoch]
    return [*diskbackup.BEFORE, *ended]


def _well(said, stored):
    """In a word, which snapshots came back. Raises Broken."""
    found = {*said["found"].values()}
    if not said["ok"] or not said["verified"]:
        raise Broken(f"one more run, or its check, found fault: {said['why']}")
    # The run that was cut may have stored its own; retention counts it, and that of the run after it.
    cut = found - {*stored, diskbackup.AFTER}
    wanted = {*stored[-(diskbackup.KEPT - 1 - len(cut)) :], diskbackup.AFTER}
    if 0 in found or len(cut) > 1 or not wanted <= found:
        raise Broken(f"versions {sorted(found)} came back, and {stored} were stored")
    return f"{len(found)} versions come back"
