# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move the data of a node into an encrypted volume, and back. Whatever stops a run, the next one goes on from there.

The order of what is made durable:

    record (whose disk, which header) ─► header, file system ─► record: made ─► copies, while services run
    ─► services stopped, last copy ─► units beside those in force ─► **their link** ─► services started
    ─► proof from the kernel's view ─► (when somebody asks) the plain copies are removed

Before the link the plain data are in use and whole, since nothing writes to them but their services; after it the
encrypted ones are, which had everything by then.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .. import files, gate, space, store, system, transaction
from ..files import NodeError, Root
from ..join import memory_mb
from ..journal import boot_id
from ..machine import cryptsetup, luks, strength
from . import copying, holding, opening, proof, record, target, units
from .record import DEVICE, HEADER, NAME, VOLUME, Record

# Another copy while services run is made as long as it is worth it: the one before took longer than this (seconds).
_SHORT, _TIMES = 5.0, 4
_BENEATH = "/run/kos/beneath"
# It takes the lock that a move holds: it need not be stopped, and started it would wait for it.
_WAITS = "kos-boot.service"


@dataclass(frozen=True)
class Wish:
    """What somebody asks for. `target`: disk, partition, or with `file` a path for a new one of `size_mb`.

    `wipe`: the same path again where it may be emptied. `skip`: data directories that stay in clear.
    """

    target: str = ""
    wipe: str = ""
    file: bool = False
    size_mb: int = 0
    skip: tuple[str, ...] = ()


@dataclass
class Report:
    """How it went: seconds and bytes of each copy, how long services were stopped, and what was proved.

    `stop`: of that time, the seconds that each of its parts took.
    """

    changed: bool = False
    directories: list[str] = field(default_factory=list)
    copies: list[dict[str, float]] = field(default_factory=list)
    stopped_seconds: float = 0.0
    stop: dict[str, float] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


class NotWell(NodeError):
    """The services do not run well on the moved data; the plain ones are in use again."""


def apply(root: Root, wish: Wish, passphrase: str) -> Report:
    """Encrypt what is in clear. Raises Refused, TooSmall, WrongKey, Busy, NotWell, CommandFailed, OSError."""
    with record.alone(root):
        generation = store.current(root)
        if generation is None:
            raise NodeError("nothing has been deployed here, so there are no data to encrypt: kai deploy first")
        settle(root)
        known, was_locked = _begun(root, wish, passphrase), record.locked(root)
        opening.wait_for_disk(known)
        opening.by_hand(root, known, passphrase)
        _mounted(root)
        if record.in_use(root):
            units.mount(root, record.moved(root))
        if was_locked:
            # The gate of what is still to be moved would find none of them running.
            opening.start_waiting(root)
        report = _move(root, known, generation.manifest)
        report.findings = [vars(row) for row in proof.of(root, record.require(root))]
        wrong = [str(row["what"]) for row in report.findings if not row["good"]]
        if wrong:
            raise NodeError(f"the data were moved, and this is not as it should be: {'; '.join(wrong)}")
        return report


def _begun(root: Root, wish: Wish, passphrase: str) -> Record:
    """The record of a volume that is formatted, made now where there is none."""
    known = record.load(root)
    if (known is None or not known.made) and (wrong := strength.fault(passphrase)):
        raise NodeError(f"the passphrase cannot be used: {wrong}")
    if known is None:
        known = _chosen(root, wish)
    elif wish.target and wish.target != known.target:
        raise target.Refused(
            f"this node's data belong to the volume on {known.target}, and one volume is all it has: "
            f"leave {wish.target} out, or take the data back first: kai encryption undo"
        )
    if wish.skip and list(wish.skip) != known.skipped:
        known = record.save(root, known.put(skipped=sorted(wish.skip)))
    return known if known.made else _formatted(root, known, passphrase)


def _chosen(root: Root, wish: Wish) -> Record:
    amount = copying.amount(map(root.join, _wanted(root, wish.skip)))
    size = wish.size_mb * 10**6 or 2 * target.needed(amount)
    found = target.choose(wish.target, wish.wipe, wish.file, size)
    target.require_room(found, amount)
    return record.save(
        root,
        Record(found.path, str(uuid.uuid4()), str(uuid.uuid4()), found.file, found.serial, found.size,
               skipped=sorted(wish.skip)),
    )  # fmt: skip


def _wanted(root: Root, skip: Sequence[str]) -> list[str]:
    return [path for path in record.directories(root) if path not in skip]


def _formatted(root: Root, known: Record, passphrase: str) -> Record:
    """Make header and file system: nothing is in them before the record says `made`, so they are made anew."""
    if opening.is_open(root):
        if record.mounted(root, VOLUME):
            system.run(["umount", VOLUME])
        cryptsetup.close(NAME)
    if known.file:
        files.remove(known.target)
        target.make_file(root, known.target, known.size)
    else:
        _still_the_same(known)
        system.run(["wipefs", "--all", "--force", known.target])
    cryptsetup.form(known.target, known.uuid, luks.affordable(memory_mb(), os.cpu_count() or 1), passphrase)
    if not cryptsetup.open_as(known.target, NAME, passphrase):
        raise system.CommandFailed(f"{known.target} does not open with the passphrase that it was just given")
    system.run(["mkfs.ext4", "-q", "-F", "-m", "1", "-U", known.filesystem, DEVICE])
    os.sync()
    files.make_directory(os.path.dirname(root.join(HEADER)))
    cryptsetup.keep_header(known.target, root.join(HEADER))
    return record.save(root, known.put(made=True))


def _still_the_same(known: Record) -> None:
    """The disk that was chosen, before it is written to. Raises Refused."""
    found = target.look(known.target)
    if (found.serial, found.size) != (known.serial, known.size):
        raise target.Refused(
            f"{known.target} is another disk than the one that was chosen ({known.size} bytes, serial "
            f"{known.serial or 'none'}): nothing was written to it; plug that one in, or: kai encryption undo"
        )
    if found.used:
        raise target.Refused(f"{known.target} is in use ({', '.join(found.used)}): nothing was written to it")


def _mounted(root: Root) -> None:
    if record.mounted(root, VOLUME):
        return
    os.makedirs(root.join(VOLUME), mode=0o700, exist_ok=True)
    system.run(["mount", "-t", "ext4", "-o", "nodev,nosuid,noatime", DEVICE, VOLUME])


def _move(root: Root, known: Record, manifest: Mapping[str, Any]) -> Report:
    """Copy what is in clear and put it in force. Raises NotWell, Refused, CommandFailed, OSError."""
    wanted = record.in_clear(root)
    report = Report(bool(wanted), directories=record.moved(root), plain=known.plain)
    if not wanted:
        units.keep_code(root)
        units.renew(root, manifest)
        return report
    _require_plain(root, wanted)
    amount = copying.amount(map(root.join, wanted))
    space.require(root, [space.Need(VOLUME, amount, 0, "of data in clear")])
    done: copying.Pass | None = None
    for _time in range(_TIMES):
        done = copying.once(_pairs(root, wanted), done)
        report.copies.append({"seconds": done.seconds, "bytes": done.bytes})
        if done.seconds < _SHORT:
            break
    with files.lock(root, wait=True):
        transaction.settle(root)
        current = store.current(root)
        wanted = record.in_clear(root)
        _require_plain(root, wanted)
        _switch(root, known, wanted, current.manifest if current else manifest, done, report)
    return report


def _pairs(root: Root, paths: Sequence[str]) -> list[tuple[str, str]]:
    return [(root.join(path), root.join(record.inside(path))) for path in paths]


def _require_plain(root: Root, paths: Sequence[str]) -> None:
    """Raises Refused where one is a file system of its own, or has one: that is somebody's decision."""
    for path in paths:
        if os.path.islink(root.join(path)) or record.mounted(root, path, below=True):
            raise target.Refused(f"{path} is a link, or has a file system of its own: leave it out with --skip {path}")


def _switch(
    root: Root, known: Record, wanted: Sequence[str], manifest: Mapping[str, Any], before: copying.Pass | None,
    report: Report,
) -> None:  # fmt: skip
    """The stop: from here to the start of the services nothing is done that could have been done before."""
    moved = sorted({*record.moved(root), *wanted})
    known = record.save(root, known.put(plain=sorted({*known.plain, *wanted}), moved=boot_id(), opened=boot_id()))
    units.keep_code(root)
    stopped_at, mounted = time.monotonic(), False
    try:
        with _timed(report, "stopping"):
            stop(root, known, manifest)
            _require_unused(root, wanted)
        with _timed(report, "copying"):
            done = copying.once(_pairs(root, wanted), before, still=True)
        report.copies.append({"seconds": done.seconds, "bytes": done.bytes})
        with _timed(report, "comparing"):
            left = copying.differences(_pairs(root, wanted))
        if left:
            raise NodeError(f"the copy is not the same as the data, which stay in use: {'; '.join(left[:3])}")
        with _timed(report, "switching"):
            units.put_in_force(root, units.write(root, moved, manifest))
            units.reload(root)
            units.mount(root, moved)
        mounted = True
    finally:
        with _timed(report, "starting"):
            settle(root, mounted)
        report.stopped_seconds = time.monotonic() - stopped_at
    sick = [row for row in gate.wait_healthy(list(manifest["services"])) if not row.healthy] if root.booted else []
    if sick:
        names = ", ".join(f"{row.service} ({row.detail})" for row in sick)
        _back(root, record.require(root), wanted, manifest)
        raise NotWell(f"not healthy on the encrypted data: {names}; the plain ones are in use again, nothing is lost")
    report.directories, report.plain = moved, known.plain


@contextlib.contextmanager
def _timed(report: Report, part: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    report.stop[part] = time.monotonic() - began


def stop(root: Root, known: Record, manifest: Mapping[str, Any]) -> None:
    """Stop every unit that may write to the data; which ones is on disk before. Raises CommandFailed."""
    timers = [row["name"] for row in manifest["units"] if row["name"].endswith(".timer")]
    names = [name for name in [*units.guarded(manifest), *timers] if name != _WAITS]
    states = system.unit_states(names)
    running = [name for name in names if states[name].get("ActiveState") in ("active", "reloading", "activating")]
    known = record.save(root, known.put(stopped=sorted({*known.stopped, *running})))
    system.stop(known.stopped)


def settle(root: Root, mounted: bool = False) -> None:
    """Start what a run has stopped and did not start again; nothing where it did. Safe to repeat.

    `mounted`: what is in force was told to systemd and mounted just now: each second counts while services stand still.
    """
    known = record.load(root)
    if known is None or not known.stopped:
        return
    if not mounted and record.in_use(root) and not record.locked(root):
        units.reload(root)
        units.mount(root, record.moved(root))
    # One that runs and ends may wait for the lock that this run holds: nobody waits for it here.
    system.systemctl("start", known.stopped, "--no-block")
    kinds = system.unit_states(known.stopped, "Id,Type")
    system.wait_for_jobs(name for name in known.stopped if kinds[name].get("Type") != "oneshot")
    record.save(root, known.put(stopped=[]))


def _require_unused(root: Root, paths: Sequence[str]) -> None:
    """Raises Refused where a process still has something of the data open."""
    if root.path != "/":
        return
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        for place in _open_paths(pid):
            if any(f"{place}/".startswith(f"{path}/") for path in paths):
                name = (files.read(f"/proc/{pid}/comm") or b"").decode().strip()
                raise target.Refused(f"{name} (process {pid}) still uses {place}: end it, then run again")


def _open_paths(pid: str) -> list[str]:
    found = []
    try:
        for name in (f"/proc/{pid}/cwd", *(f"/proc/{pid}/fd/{row}" for row in os.listdir(f"/proc/{pid}/fd"))):
            found.append(os.readlink(name))
    except OSError:
        # It has ended meanwhile, or is the kernel's own.
        pass
    return found


def undo(root: Root) -> Report:
    """Take the data back out of the volume, which stays as it is. Raises Locked, NoRoom, NotEncrypted, NodeError."""
    with record.alone(root):
        settle(root)
        known = record.require(root)
        if not record.in_use(root):
            holding.forget(root)
            return Report(True)
        record.require_open(root)
        generation = store.current(root)
        amount = copying.amount(root.join(record.inside(path)) for path in record.moved(root))
        space.require(root, [space.Need("/var/lib", amount, 0, "of data that come back")])
        with files.lock(root, wait=True):
            _back(root, known, record.moved(root), generation.manifest if generation else {"units": [], "services": []})
        holding.forget(root)
        return Report(True)


def _back(root: Root, known: Record, paths: Sequence[str], manifest: Mapping[str, Any]) -> None:
    """Bring what was written since back to the plain data, then use those. Raises CommandFailed, OSError."""
    stop(root, known, manifest)
    known = record.require(root)
    try:
        system.run(["systemctl", "stop", "--", *map(units.mount_of, paths)])
        copying.once([(target_, source) for source, target_ in _pairs(root, paths)], None, still=True)
        stay = [path for path in record.moved(root) if path not in paths]
        if stay:
            units.put_in_force(root, units.write(root, stay, manifest))
        else:
            units.withdraw(root)
        record.save(root, known.put(plain=[path for path in known.plain if path not in paths]))
        units.reload(root)
    finally:
        settle(root)


def discard(root: Root, unproven: bool = False) -> list[str]:
    """Remove the plain copies: nothing else can bring back what they hold. Raises NodeError, OSError.

    Only after the volume was opened in a later boot than the one it was made in, or where somebody insists.
    """
    with record.alone(root), files.lock(root, wait=True):
        known = record.require(root)
        record.require_open(root)
        if not unproven and known.opened == known.moved:
            raise NodeError(
                "the volume was not opened since this machine started last, so nobody knows that its passphrase is "
                "at hand: restart the machine, unlock it, and run this again; or insist with --unproven"
            )
        wrong = [row.what for row in proof.of(root, known) if not row.good]
        if wrong:
            raise NodeError(f"nothing was removed, as this is not as it should be: {'; '.join(wrong)}")
        for path in [path for path in known.plain if path in record.moved(root)]:
            with _beneath(root, path) as old:
                copying.overwrite(old)
                system.run(["fstrim", os.path.dirname(old)], check=False)
            known = record.save(root, known.put(plain=[row for row in known.plain if row != path]))
        return known.plain


@contextlib.contextmanager
def _beneath(root: Root, path: str) -> Iterator[str]:
    """Where the directory lies that the volume's own covers. Raises CommandFailed."""
    os.makedirs(root.join(_BENEATH), mode=0o700, exist_ok=True)
    system.run(["mount", "--bind", os.path.dirname(path), _BENEATH])
    try:
        yield os.path.join(root.join(_BENEATH), os.path.basename(path))
    finally:
        system.run(["umount", _BENEATH])
