# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One backup: every service's copy at one moment, one manifest, one snapshot, then old snapshots pruned."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import files, repository, servicedata, store, system
from .files import Busy, NodeError, Root
from .journal import Journal
from .repository import Settings
from .secrets import Vault

STAGING = "/var/lib/kos/staging"
MANIFEST = "kos-backup.json"
UNIT = "kos-backup.service"
FORMAT = 1
_STOPPED = os.path.join(repository.TRAVEL, "stopped.json")
_SPARE = 256 * 2**20


class Incomplete(NodeError):
    """The snapshot was made, but a service's data is not in it."""


def run(root: Root, tag: str = "") -> dict[str, Any]:
    """Back up every service into the first repository, copy to the others, prune; returns the run's record.

    `tag` marks a safety copy (``before-…``), after which nothing is pruned: what it is made for may still be
    needed. So is every copy while a restore has not ended. Raises Refused, Busy, RepositoryError, Incomplete; each
    is recorded first.
    """
    settings = repository.settings(root)
    began = time.time()
    with repository.held(root):
        tag = tag or ("before-restore" if unfinished(root) is not None else "")
        try:
            record = _run(root, settings, tag)
        except NodeError as error:
            _remember(root, settings, {"time": int(began), "ok": False, "error": str(error)})
            raise
        _outdate(root)
        record |= {"time": int(began), "seconds": round(time.time() - began, 1)}
        _remember(root, settings, record)
    if not record["ok"]:
        raise Incomplete(record["error"])
    return record


def unfinished(root: Root) -> dict[str, Any] | None:
    """The restore that was begun and has not ended: its snapshot (None: yet to be found), the services it touched."""
    record: dict[str, Any] | None = files.read_json(root.state("restore.json"), None)
    return record


def keep_unfinished(root: Root, record: dict[str, Any] | None) -> None:
    """Remember a restore that has begun; None: it has ended."""
    if record is None:
        files.remove(root.state("restore.json"))
    else:
        files.write_json(root.state("restore.json"), record)


def _outdate(root: Root) -> None:
    """What an unfinished restore has touched may have been used since, and is asked for again before it is replaced."""
    record = unfinished(root)
    if record is not None:
        keep_unfinished(root, {**record, "services": []})


def start(root: Root) -> dict[str, Any]:
    """Have systemd run a backup in its own sandbox, wait for it, and return its record.

    Two at once are one: the second waits for the first. Raises Refused, Incomplete.
    """
    repository.settings(root)
    before = files.read(root.state("backup.json"))
    done = system.run(["systemctl", "start", UNIT], check=False)
    if files.read(root.state("backup.json")) == before:
        said = [line for line in system.journal_tail(UNIT) if "systemd" not in line] or [done.stderr.decode().strip()]
        raise Incomplete(f"the backup did not end: {said[-1]} (journalctl -u kos-backup)")
    record: dict[str, Any] = files.read_json(root.state("backup.json"), {})["last"]
    if not record["ok"]:
        raise Incomplete(record["error"])
    return record


def _run(root: Root, settings: Settings, tag: str) -> dict[str, Any]:
    generation = store.current(root)
    if generation is None:
        raise store.Refused("nothing has been deployed here, so there is nothing to back up")
    first, *others = settings.repositories
    absent = _ensure_reachable(root, settings)
    try:
        manifest = _collect(root, generation)
        failed = {name: row["error"] for name, row in manifest["services"].items() if not row["ok"]}
        tags = ["kos", *([tag] if tag else []), *([repository.PARTIAL] if failed else [])]
        summary = _store(first, tags)
    finally:
        settle()
    notes = [f"{name}: {error}" for name, error in failed.items()]
    if not failed:
        notes += _copy_and_prune(settings, summary["snapshot_id"], absent, prune=not tag)
    problem = f"the snapshot lacks {'; '.join(notes)}" if failed else "; ".join(notes)
    return {
        "ok": not notes,
        "error": problem,
        "snapshot": summary["snapshot_id"][:8],
        "repositories": [first, *others],
        "bytes": summary["total_bytes_processed"],
        "added": summary.get("data_added_packed", summary["data_added"]),
        "window_seconds": manifest["window_seconds"],
        "services": manifest["services"],
    }


def _ensure_reachable(root: Root, settings: Settings) -> dict[str, str]:
    """Make what is missing, and drop stale locks; returns why each copy's repository cannot be used.

    A stale lock is one of a process that is dead, or that has not renewed it for half an hour. Raises
    RepositoryError when it is the first repository that cannot be used.
    """
    if any(place.startswith("sftp:") for place in settings.repositories):
        repository.public_key()
    first, *others = settings.repositories
    repository.ensure(root, first)
    repository.restic(first, "unlock", "--quiet")
    problems = {}
    for place in others:
        try:
            repository.ensure(root, place, like=first)
            repository.restic(place, "unlock", "--quiet")
        except NodeError as error:
            problems[place] = str(error)
    return problems


def _collect(root: Root, generation: store.Generation) -> dict[str, Any]:
    """Every service's copy in the staging folder, and the manifest beside them. Raises Refused, Busy."""
    services = servicedata.with_data(generation)
    repository.travel_directory()
    prepare_staging()
    _check_space(services)
    with _undisturbed(root):
        began = time.monotonic()
        rows = _copy_all(services)
        window = round(time.monotonic() - began, 2)
    manifest = {
        "format": FORMAT,
        "node": os.uname().nodename,
        "time": int(time.time()),
        "generation": {"id": generation.id, "number": generation.number, "profile": generation.manifest["profile"]},
        "packages": _versions(generation.manifest["packages"]),
        "window_seconds": window,
        "services": rows,
    }
    files.write_json(os.path.join(STAGING, MANIFEST), manifest, 0o644)
    vault = Vault(root)
    wanted = [f"{entry['service']}.{entry['name']}" for entry in generation.manifest["secrets"]]
    travelling = {name: vault.reveal(name) for name in wanted if name not in repository.SECRETS}
    files.write(os.path.join(repository.TRAVEL, "secrets.json"), json.dumps(travelling).encode(), 0o600)
    servicedata.hand_over(os.path.join(repository.TRAVEL, "secrets.json"), repository.USER)
    return manifest


def prepare_staging() -> None:
    """The empty staging folder: kos-backup may list it, each service reach its own folder in it."""
    os.makedirs(STAGING, mode=0o751, exist_ok=True)
    os.chown(STAGING, 0, repository.group())
    os.chmod(STAGING, 0o751)  # noqa: S103 - what is in it has its own owner and 0700
    settle()


def _copy_all(services: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Copy them side by side, so that all copies are of one short moment; what must stand still is stopped first."""
    still = [unit for row in services if "backup" in row["backup"]["stopped"] for unit in row["units"]]
    running = [name for name, state in system.unit_states(still).items() if state.get("ActiveState") == "active"]
    files.write_json(_STOPPED, running)
    system.systemctl("stop", running)
    with ThreadPoolExecutor(max_workers=max(1, len(services))) as pool:
        rows = dict(pool.map(_copy, services))
    system.systemctl("start", running)
    files.remove(_STOPPED)
    return rows


def _copy(service: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name, began = service["name"], time.monotonic()
    folder = os.path.join(STAGING, name)
    row: dict[str, Any] = {"ok": True, "error": "", "user": servicedata.user_of(service)}
    try:
        servicedata.make_directory(folder, row["user"])
        servicedata.run_command(service, "backup", folder)
    except NodeError as error:
        row |= {"ok": False, "error": str(error)}
        servicedata.clear(folder)
    if "backup" in service["backup"]["stopped"]:
        system.systemctl("start", service["units"], "--no-block")
    row["seconds"] = round(time.monotonic() - began, 2)
    if row["ok"]:
        servicedata.hand_over(folder, repository.USER)
        row |= servicedata.fingerprint(folder).as_dict()
    return name, row


def _check_space(services: list[dict[str, Any]]) -> None:
    """Raises Refused when the copies may not fit: each is at most as large as what it copies."""
    needed = sum(_size(f"/var/lib/{servicedata.user_of(row)}") for row in services) + _SPARE
    free = shutil.disk_usage(STAGING).free
    if needed > free:
        raise store.Refused(
            f"the copies may need {needed // 2**20} MB in {STAGING} and {free // 2**20} MB are free:"
            " make room, then run kai backup again"
        )


def _size(path: str) -> int:
    total = 0
    for folder, _folders, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


@contextlib.contextmanager
def _undisturbed(root: Root, patience: float = 120) -> Iterator[None]:
    """Hold the node's lock while no change of it is half way. Raises Busy after `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            with files.lock(root):
                journal = Journal(root)
                if journal.open and journal.switched:
                    raise Busy("a change of this node is under way: wait until it has committed, then run kai backup")
                yield
                return
        except Busy:
            if time.monotonic() > until:
                raise
        time.sleep(1)


def _store(place: str, tags: list[str]) -> dict[str, Any]:
    """One snapshot of everything collected; returns restic's summary."""
    labels = [argument for tag in tags for argument in ("--tag", tag)]
    paths = [STAGING, os.path.join(repository.TRAVEL, "secrets.json")]
    said = repository.restic(
        place, "--json", "--quiet", "backup", "--host", os.uname().nodename, *labels, "--group-by", "host", *paths
    )
    summary: dict[str, Any] = json.loads(said.splitlines()[-1])
    return summary


def _copy_and_prune(settings: Settings, snapshot: str, absent: dict[str, str], prune: bool) -> list[str]:
    """Copy the snapshot, and prune where asked to; returns what went wrong, since the snapshot itself is safe."""
    first, *others = settings.repositories
    problems = [f"not copied: {reason}" for reason in absent.values()]
    for place in [place for place in settings.repositories if place not in absent]:
        try:
            if place in others:
                repository.restic(place, "--quiet", "copy", "--from-repo", first, snapshot)
            if prune:
                forget(place, settings.keep)
        except NodeError as error:
            problems.append(f"{'not copied' if place in others else 'not pruned'}: {error}")
    return problems


def forget(place: str, keep: list[str]) -> None:
    """Drop this node's snapshots that the retention no longer keeps, and their data. Raises RepositoryError.

    The retention counts complete snapshots and each kind of safety copy for itself; a partial one stays until
    there is a newer complete one.
    """
    host = os.uname().nodename
    whole, outdated = False, []
    for row in reversed(repository.snapshots(place, host)):
        if repository.PARTIAL in row["tags"] and whole:
            outdated.append(row["id"])
        whole = whole or repository.whole(row)
    if outdated:
        repository.restic(place, "--quiet", "forget", *outdated)
    repository.restic(
        place, "--quiet", "forget", "--tag", "kos", "--host", host, "--group-by", "host,tags",
        "--keep-tag", repository.PARTIAL, "--prune", *keep,
    )  # fmt: skip


def settle() -> None:
    """Start what a run had stopped, and leave nothing in the staging folder; safe to repeat."""
    system.systemctl("start", files.read_json(_STOPPED, []))
    files.remove(_STOPPED)
    for name in os.listdir(STAGING) if os.path.isdir(STAGING) else []:
        servicedata.clear(os.path.join(STAGING, name))
    for name in ("secrets.json", *repository.TRAVELLING):
        files.remove(os.path.join(repository.TRAVEL, name))


def _versions(packages: list[str]) -> dict[str, str]:
    argv = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages]
    rows = system.run(argv, check=False).stdout.decode().splitlines()
    return dict(row.split(" ", 1) for row in rows)


def state(root: Root) -> dict[str, Any] | None:
    """The last run, the last good one, and whether the key has been exported; None where nothing is to be backed up."""
    if not os.path.exists(root.join(repository.SETTINGS)):
        return None
    record: dict[str, Any] = files.read_json(root.state("backup.json"), {})
    return {
        "last": record.get("last"),
        "last_success": record.get("last_success"),
        "interval": record.get("interval"),
        "key_exported": files.read_json(root.state("backup-key.json"), None),
    }


def findings(root: Root) -> list[tuple[str, str]]:
    """What is wrong with this node's backups, each with the command that mends it."""
    current = state(root)
    if current is None:
        return []
    found = []
    if unfinished(root) is not None:
        text = "a restore has not ended: until it has, each backup is a safety copy and nothing is pruned"
        found.append((text, "kai restore --overwrite"))
    last = current["last"]
    if last is None:
        found.append(("no backup has been made yet", "kai backup"))
    elif not last["ok"]:
        found.append((f"the last backup failed: {last['error']}", "kai backup"))
    interval = current["interval"] or 86400
    if last is not None and time.time() - (current["last_success"] or 0) > 2 * interval + 7200:
        found.append(("the last complete backup is older than two of its intervals", "kai backup"))
    if current["key_exported"] is None:
        text = "the key of its backups exists on this node only: without it they cannot be restored elsewhere"
        found.append((text, "kai backup key export"))
    return found


def export_key(root: Root) -> str:
    """The repository's password, for the operator to keep. Raises Refused."""
    repository.settings(root)
    return Vault(root).reveal("restic.password")


def key_exported(root: Root) -> None:
    """Remember that an operator holds the repository's password."""
    files.write_json(root.state("backup-key.json"), int(time.time()))


def _remember(root: Root, settings: Settings, last: dict[str, Any]) -> None:
    """Keep the outcome for status and doctor, and give it to Prometheus."""
    before = files.read_json(root.state("backup.json"), {})
    success = last["time"] if last["ok"] else before.get("last_success")
    interval = _interval(settings.schedule)
    files.write_json(root.state("backup.json"), {"last": last, "last_success": success, "interval": interval})
    figures = {
        "last_run_timestamp_seconds": (last["time"], "When the last backup began."),
        "last_run_ok": (int(last["ok"]), "Whether it was complete."),
        "last_success_timestamp_seconds": (success or 0, "When the last complete backup began; 0 before the first."),
        "last_run_duration_seconds": (last.get("seconds", 0), "How long the last backup took."),
        "last_run_added_bytes": (last.get("added", 0), "What it added to the repository."),
        "interval_seconds": (interval, "The time between two backups, as the timer has it."),
    }
    lines = [
        f"# HELP kos_backup_{name} {text}\n# TYPE kos_backup_{name} gauge\nkos_backup_{name} {value}\n"
        for name, (value, text) in figures.items()
    ]
    files.write(root.state("metrics", "backup.prom"), "".join(lines).encode())


def _interval(schedule: str) -> int:
    """Seconds between the next two runs of a systemd calendar."""
    said = system.run(["systemd-analyze", "calendar", "--iterations=2", schedule], check=False).stdout.decode()
    times = re.findall(r"(?:Next elapse|Iteration #2|\(in UTC\)): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", said)
    moments = [time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S")) for text in times]
    return int(moments[-1] - moments[0]) if len(moments) > 1 else 86400
