# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a snapshot's data back into running services, or prove that it could be.

Every service's restore command replaces what is there, so a restore that was interrupted is run again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from typing import Any

from . import backup, files, gate, repository, servicedata, store, system, transaction
from .backup import MANIFEST, STAGING
from .files import NodeError, Root
from .secrets import Vault
from .transaction import Request

# No service can have this name.
_LAID = os.path.join(STAGING, "laid-down")
_NAME = re.compile(r"[a-z0-9_]+")


class Damaged(NodeError):
    """What came out of the repository is not what went in."""


def announce(root: Root) -> None:
    """Say that a restore follows the first deploy of this node, before its timer makes backups of an empty node.

    Until the restore has ended they are safety copies, which are never the newest snapshot.
    """
    if store.current(root) is None and backup.unfinished(root) is None:
        backup.keep_unfinished(root, {"snapshot": None, "services": []})


def restore(
    root: Root, wanted: str | None = None, services: list[str] | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Restore a snapshot into the node's services; returns a report.

    Without a name it is the one whose restore has not ended, else the newest complete one. Only `services` where
    named. Raises Refused when data would be replaced and `overwrite` is not set, or when the node lacks a service;
    Damaged before anything is touched; RepositoryError; CommandFailed.
    """
    settings = repository.settings(root)
    place = settings.repositories[0]
    generation = store.current(root)
    if generation is None:
        raise store.Refused("nothing has been deployed here: kai restore --into-fresh deploys first")
    with repository.held(root):
        before = backup.unfinished(root)
        begun = (before or {}).get("snapshot")
        snapshot = repository.find(place, begun if begun and wanted in (None, "latest") else wanted)
        manifest = _manifest(place, snapshot["id"])
        rows = _chosen(generation, manifest, services)
        resumed = before is not None and begun == snapshot["id"]
        touched = list(before["services"]) if before and resumed else []
        holding = [row["name"] for row in rows if row["name"] not in touched and servicedata.holds(row)]
        if holding and not overwrite:
            raise store.Refused(
                f"{', '.join(holding)} on this node hold data that would be replaced: kai restore --overwrite does it,"
                " after a safety copy"
            )
        # From here on no backup prunes the snapshot.
        backup.keep_unfinished(root, {"snapshot": snapshot["id"], "services": touched})
    try:
        safety = backup.run(root, "before-restore")["snapshot"] if holding else None
        with repository.held(root):
            try:
                report = _restore(root, place, snapshot, manifest, rows, touched, whole=services is None)
            finally:
                backup.settle()
    except NodeError:
        if not touched:
            backup.keep_unfinished(root, before)
        raise
    return {"snapshot": snapshot, "safety": safety, "resumed": resumed, **report}


def _restore(
    root: Root,
    place: str,
    snapshot: dict[str, Any],
    manifest: dict[str, Any],
    rows: list[dict[str, Any]],
    touched: list[str],
    whole: bool,
) -> dict[str, Any]:
    """Lay down, check, and bring in one service after the other; each is in `touched` before it is."""
    began = time.monotonic()
    names = [row["name"] for row in rows]
    _lay_down(place, snapshot["id"], manifest, names)
    secrets = _take_over_secrets(root, place, snapshot["id"], names, whole)
    done = {}
    with files.lock(root, wait=True):
        current = store.current(root)
        here = current.manifest["services"] if current else []
        for row in rows:
            started = time.monotonic()
            touched += [row["name"]] if row["name"] not in touched else []
            backup.keep_unfinished(root, {"snapshot": snapshot["id"], "services": touched})
            _into_service(root, row)
            # A restored authority has its daemons restarted: no restore may run into that.
            system.wait_for_jobs(unit for service in here for unit in service["units"])
            facts = {key: manifest["services"][row["name"]][key] for key in ("files", "bytes", "digest")}
            done[row["name"]] = {**facts, "seconds": round(time.monotonic() - started, 2)}
        health = gate.wait_healthy(here, hooks=True)
    # A service that an earlier, interrupted run had begun and this one was not asked for is still half way.
    left = [name for name in touched if name not in names]
    backup.keep_unfinished(root, {"snapshot": snapshot["id"], "services": left} if left else None)
    return {
        "manifest": {key: manifest[key] for key in ("node", "time", "generation")},
        "services": done,
        "secrets": secrets,
        "health": [row.as_dict() for row in health],
        "seconds": round(time.monotonic() - began, 1),
    }


def _manifest(place: str, snapshot: str) -> dict[str, Any]:
    """The manifest inside a snapshot. Raises Damaged, RepositoryError."""
    try:
        manifest: dict[str, Any] = json.loads(_dump(place, snapshot, os.path.join(STAGING, MANIFEST)))
    except ValueError as error:
        raise Damaged(f"snapshot {snapshot} holds no readable manifest: choose another (kai backup --list)") from error
    if manifest["format"] != backup.FORMAT:
        raise store.Refused(f"snapshot {snapshot} was made by another release (format {manifest['format']})")
    for name in manifest["services"]:
        # Whoever can write to the repository wrote these; they become paths.
        if not _NAME.fullmatch(name):
            raise Damaged(f"snapshot {snapshot} names a service {name!r}, which none can be called: choose another")
    return manifest


def _dump(place: str, snapshot: str, path: str) -> bytes:
    try:
        return repository.restic(place, "--no-lock", "--quiet", "dump", snapshot, path)
    finally:
        files.remove(os.path.join(repository.TRAVEL, "output"))


def _chosen(generation: store.Generation, manifest: dict[str, Any], services: list[str] | None) -> list[dict[str, Any]]:
    """The node's services to restore, in start order. Raises Refused for one that either side lacks."""
    here = {row["name"]: row for row in servicedata.with_data(generation)}
    saved = [name for name, row in manifest["services"].items() if row["ok"]]
    lacking = [name for name in services or [] if name not in saved]
    if lacking:
        raise store.Refused(f"the snapshot has no data of {', '.join(lacking)}; it has: {', '.join(sorted(saved))}")
    wanted = services or saved
    absent = [name for name in wanted if name not in here]
    if absent:
        profile = manifest["generation"]["profile"]
        raise store.Refused(
            f"the snapshot has data of {', '.join(absent)}, which this node does not run: deploy {profile} first,"
            " or name what to restore with --service"
        )
    return [row for row in generation.manifest["services"] if row["name"] in wanted]


def _lay_down(place: str, snapshot: str, manifest: dict[str, Any], names: list[str]) -> None:
    """Put the copies into the staging folder and prove that each is what was saved. Raises Damaged."""
    backup.prepare_staging()
    servicedata.make_directory(_LAID, repository.USER)
    included = [argument for name in names for argument in ("--include", os.path.join(STAGING, name))]
    repository.restic(place, "--no-lock", "--quiet", "restore", snapshot, "--target", _LAID, *included)
    # From here on kos-backup, which laid it down, can change nothing in it.
    servicedata.hand_over(_LAID, "root")
    for name in names:
        path = _take_out(name, snapshot)
        if servicedata.fingerprint(path).digest != manifest["services"][name]["digest"]:
            raise Damaged(
                f"{name} in snapshot {snapshot} is not what was saved: kai verify, then choose another snapshot"
            )


def _take_out(name: str, snapshot: str) -> str:
    """Move one service's copy from where restic laid it down to its own folder; no link on the way is followed.

    Raises Damaged where a link, or anything else that is no folder, stands in its place.
    """
    path = os.path.join(STAGING, name)
    with contextlib.ExitStack() as opened:
        folder = _open_folder(_LAID, None, opened)
        try:
            for part in STAGING.strip("/").split("/"):
                folder = _open_folder(part, folder, opened)
            _open_folder(name, folder, opened)
            os.rename(name, path, src_dir_fd=folder)
        except FileNotFoundError:
            os.mkdir(path)
        except OSError as error:
            raise Damaged(f"snapshot {snapshot} has no folder where {name} was: choose another") from error
    os.chmod(path, 0o700)
    return path


def _open_folder(path: str, inside: int | None, opened: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=inside)
    opened.callback(os.close, descriptor)
    return descriptor


def _take_over_secrets(root: Root, place: str, snapshot: str, names: list[str], whole: bool) -> list[str]:
    """Seal the snapshot's secrets for this machine, and start with them what uses them; returns their names.

    Clients and data know these secrets, so a restored service without them would match neither.
    """
    saved: dict[str, str] = json.loads(_dump(place, snapshot, os.path.join(repository.TRAVEL, "secrets.json")))
    generation = store.current(root)
    entries = generation.manifest["secrets"] if generation else []
    known = {f"{entry['service']}.{entry['name']}" for entry in entries}
    usable = {
        name: text
        for name, text in saved.items()
        if text and name in known and (whole or name.split(".")[0] in names) and name not in repository.SECRETS
    }
    stale = Vault(root).missing(entries, usable)
    if stale and generation is not None:
        node = files.read_json(root.state("node.json"), {})
        transaction.deploy(root, Request(generation.id, secrets=usable, node=node))
    return stale


def _into_service(root: Root, row: dict[str, Any]) -> None:
    """One service's data from the staging folder. Raises CommandFailed; the service runs again either way."""
    folder = os.path.join(STAGING, row["name"])
    servicedata.hand_over(folder, servicedata.user_of(row))
    try:
        servicedata.copy_data(root, "restore", row["name"], folder)
    except NodeError as error:
        message = f"{row['name']}: {error}; the restore can be run again, and goes on from the beginning"
        raise system.CommandFailed(message) from error


def verify(root: Root, share: str = "10%", wanted: str | None = None) -> dict[str, Any]:
    """Check a repository's structure and a share of its data, then lay a snapshot down and compare it.

    Touches no service. Raises RepositoryError when the repository cannot be used at all.
    """
    if not re.fullmatch(r"(100|[1-9]?[0-9](\.[0-9]+)?)%", share):
        raise store.Refused(f"'{share}' is no share: give one such as 10%")
    settings = repository.settings(root)
    report: dict[str, Any] = {"repositories": [], "services": {}, "ok": True}
    with repository.held(root):
        for place in settings.repositories:
            problem = _check(place, share)
            report["repositories"].append({"place": place, "ok": not problem, "problem": problem})
        try:
            report |= _compare(settings.repositories[0], wanted)
        except (repository.RepositoryError, Damaged) as error:
            report["problem"] = str(error)
        finally:
            backup.settle()
    rows = [*report["repositories"], *report["services"].values()]
    report["ok"] = "problem" not in report and bool(report["services"]) and all(row["ok"] for row in rows)
    return report


def _check(place: str, share: str) -> str:
    try:
        repository.restic(place, "unlock", "--quiet")
        repository.restic(place, "--quiet", "check", f"--read-data-subset={share}")
    except repository.RepositoryError as error:
        return str(error)
    return ""


def _compare(place: str, wanted: str | None) -> dict[str, Any]:
    snapshot = repository.find(place, wanted)
    manifest = _manifest(place, snapshot["id"])
    services = {}
    for name, saved in manifest["services"].items():
        row = {
            "ok": saved["ok"],
            "problem": saved["error"],
            "bytes": saved.get("bytes", 0),
            "files": saved.get("files", 0),
        }
        if saved["ok"]:
            try:
                _lay_down(place, snapshot["id"], manifest, [name])
            except (Damaged, repository.RepositoryError) as error:
                row |= {"ok": False, "problem": str(error)}
        services[name] = row
    return {"snapshot": snapshot, "services": services}
