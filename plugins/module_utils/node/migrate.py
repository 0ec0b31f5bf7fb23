# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Become another profile without losing data: export before the deploy, import and compare after it.

Each step is in a journal and may be repeated. What was exported, and the data directories that the target no
longer uses, stay until they are purged.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import Any

from . import backup, files, gate, servicedata, store, system
from .files import NodeError, Root

EXPORT = "/var/lib/kos/migration"


def journal(root: Root) -> dict[str, Any]:
    """The migration that was begun last; empty where there was none."""
    document: dict[str, Any] = files.read_json(root.state("migration.json"), {})
    return document


def export(root: Root, source: str, target: str, with_backup: bool) -> dict[str, Any]:
    """Check the source, back it up where asked, and copy out every service's data; returns the journal.

    Goes on with a migration that was interrupted. Raises Refused when the node is not what `source` says or is
    not well, or another migration is open; CommandFailed.
    """
    generation = store.current(root)
    running = generation.manifest["profile"] if generation else None
    begun = journal(root)
    if begun and begun["phase"] != "done":
        same = (begun["from"], begun["to"]) == (source, target)
        if not same and running != begun["from"]:
            raise store.Refused(
                f"the migration from {begun['from']} to {begun['to']} has not ended: run that one again first"
            )
        if same and begun["phase"] == "exported" and not (running == source and _moved_on(begun)):
            return begun
    if generation is None or running != source:
        raise store.Refused(f"this node runs {running or 'nothing yet'}, not {source}: name that with --from")
    sick = [row.service for row in gate.check_once(generation.manifest["services"]) if not row.healthy]
    if sick:
        raise store.Refused(f"{', '.join(sick)} is not healthy, and a sick node is not migrated: kai doctor")
    record: dict[str, Any] = {"from": source, "to": target, "began": int(time.time()), "phase": "begun", "backup": None}
    _keep(root, record)
    if with_backup:
        record["backup"] = backup.run(root, "before-migration")["snapshot"]
        _keep(root, record)
    with files.lock(root, wait=True):
        record["services"] = {
            row["name"]: _export(row, _volumes(generation, row["name"])) for row in servicedata.with_data(generation)
        }
    record["phase"] = "exported"
    _keep(root, record)
    return record


def _keep(root: Root, record: dict[str, Any]) -> None:
    files.write_json(root.state("migration.json"), record)


def _volumes(generation: store.Generation, service: str) -> list[str]:
    """Where the service keeps its data, as its generation says."""
    return [row["path"] for row in generation.manifest["volumes"] if row["service"] == service]


def _export(service: dict[str, Any], directories: list[str]) -> dict[str, Any]:
    folder = os.path.join(EXPORT, service["name"])
    os.makedirs(EXPORT, mode=0o711, exist_ok=True)
    servicedata.make_directory(folder, servicedata.user_of(service))
    stops = "backup" in service["backup"]["stopped"]
    if stops:
        system.systemctl("stop", service["units"])
    try:
        servicedata.run_command(service, "backup", folder)
    except NodeError as error:
        raise system.CommandFailed(f"{service['name']} could not be exported: {error}; nothing was changed") from error
    finally:
        if stops:
            system.systemctl("start", service["units"])
    servicedata.hand_over(folder, "root")
    found = servicedata.fingerprint(folder).as_dict()
    return {**found, "user": servicedata.user_of(service), "directories": directories, "state": _state(directories)}


def _state(directories: list[str]) -> list[int]:
    """What changes when somebody writes below `directories`: the newest change, and how much there is."""
    newest, total = 0, 0
    for directory in directories:
        for folder, _folders, names in os.walk(directory):
            for name in names:
                status = os.lstat(os.path.join(folder, name))
                newest, total = max(newest, status.st_mtime_ns), total + status.st_size
    return [newest, total]


def _moved_on(record: dict[str, Any]) -> list[str]:
    """The services whose data changed after their export."""
    return [name for name, row in record["services"].items() if _state(row["directories"]) != row["state"]]


def take_in(root: Root, source: str, target: str) -> dict[str, Any]:
    """After the deploy: import what another engine takes over, compare it, and end the migration; returns a report.

    A service that both profiles have kept its data where it was. Raises Refused before the deploy, or when the
    source was written to after its export; CommandFailed when an import or its comparison fails.
    """
    generation = store.current(root)
    record = journal(root)
    if not record or (record["from"], record["to"]) != (source, target):
        raise store.Refused(f"no migration from {source} to {target} has been begun here")
    if record["phase"] == "done":
        return _report(record)
    if generation is None or generation.manifest["profile"] != target:
        raise store.Refused(f"this node does not run {target} yet: run kai migrate again")
    here = {row["name"]: row for row in generation.manifest["services"]}
    moved = record.setdefault("moved", {})
    for name in record["services"]:
        if name in here or name in moved:
            continue
        importer = next((service for service in here.values() if name in service.get("imports", {})), None)
        if importer is None:
            continue
        if name in _moved_on(record):
            raise store.Refused(
                f"{name} was written to after its export: kai rollback, stop what writes to it, then kai migrate again"
            )
        moved[name] = {"into": importer["name"], "compared": _import(importer, name)}
        _keep(root, record)
    record |= {
        "phase": "done",
        "stayed": sorted(name for name in record["services"] if name in here),
        "kept": {
            name: row["directories"]
            for name, row in record["services"].items()
            if name not in here and row["directories"]
        },
        "ended": int(time.time()),
    }
    _keep(root, record)
    return _report(record)


def _import(importer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Import the export of `name` and compare; returns what was compared: name, number, checksum."""
    commands = importer["imports"][name]
    folder = os.path.join(EXPORT, name)
    user = commands.get("user") or importer["user"]
    servicedata.hand_over(folder, user)
    try:
        servicedata.run_as(user, commands["command"], folder)
        said = servicedata.run_as(user, commands["compare"], folder)
    except NodeError as error:
        message = (
            f"{name} could not be imported into {importer['name']}: {error}; the source is untouched, run it again"
        )
        raise system.CommandFailed(message) from error
    finally:
        servicedata.hand_over(folder, "root")
    return [json.loads(line) for line in said.splitlines()]


def _report(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record.get(key) for key in ("from", "to", "backup", "moved", "stayed", "kept", "phase")}


def purge(root: Root) -> dict[str, Any]:
    """Delete the exports and the data volumes that the target does not use.

    Raises Refused before the migration is done; OSError for what cannot be deleted, and may then be run again.
    """
    record = journal(root)
    if not record or record["phase"] != "done":
        raise store.Refused("no migration has been completed and verified here, so nothing may be purged")
    generation = store.current(root)
    used = [row["path"] for row in generation.manifest["volumes"]] if generation else []
    kept = sorted({path for paths in record["kept"].values() for path in paths})
    removed = [path for path in kept if not any(other == path or other.startswith(f"{path}/") for other in used)]
    with files.lock(root, wait=True):
        for directory in [*removed, EXPORT]:
            if os.path.lexists(root.join(directory)):
                shutil.rmtree(root.join(directory))
        files.remove(root.state("migration.json"))
    return {"removed": removed}
