# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kOS owns on this node, and what was there before it: enough to shrink and to uninstall exactly."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from . import files, originals
from .files import Root
from .journal import Journal

ORIGINALS = "originals"


@dataclass
class Ledger:
    """Everything kOS owns on this node.

    `files`, `units`: of the committed generation. `users` (name -> [uid, gid]), `groups`, `packages`, `volumes`
    (path, user, service), `directories`: made by kOS or by what it installed, until they are removed.
    `originals`: what was at a path of `files` before. `replaced`: Debian's systemd units that ran until kOS masked
    them. `configured`: packages with configuration from before. `made`: paths in /etc that installing packages
    brought. `downloads`: what kOS put into apt's cache. `host_key`: whether sealing made this machine's key.
    """

    files: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    users: dict[str, list[int]] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    configured: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    volumes: list[dict[str, str]] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    originals: dict[str, dict[str, Any]] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    host_key: bool = False


def load(root: Root) -> Ledger:
    """The node's ledger; an empty one before the first commit."""
    data = files.read_json(root.state("ledger.json"), {})
    known = {entry.name for entry in fields(Ledger)}
    return Ledger(**{key: value for key, value in data.items() if key in known})


def save(root: Root, ledger: Ledger) -> None:
    """Write the ledger, atomically."""
    files.write_json(root.state("ledger.json"), asdict(ledger))


def committed(root: Root, manifest: dict[str, Any], journal: Journal) -> Ledger:
    """The ledger after the transaction of `journal`, whose originals it takes over into its own folder."""
    ledger = load(root)
    wanted = [row["path"] for row in manifest["files"]]
    _adopt_originals(root, ledger, set(wanted), journal)
    for record in journal.of("packages"):
        ledger.packages = _merged(ledger.packages, record["added"])
        ledger.configured = _merged(ledger.configured, record["configured"])
    for record in journal.of("packages_made"):
        ledger.made = _merged(ledger.made, record["paths"])
    for record in journal.of("accounts_made"):
        ledger.users |= record["users"]
        ledger.groups = _merged(ledger.groups, record["groups"])
    directories = [folder for record in journal.of("file") for folder in record["directories"]]
    outside = [folder for folder in directories if not f"{folder}/".startswith(f"{files.STATE}/")]
    ledger.directories = [folder for folder in _merged(ledger.directories, outside) if os.path.isdir(root.join(folder))]
    ledger.replaced = [name for name in ledger.replaced if f"/etc/systemd/system/{name}" in wanted]
    ledger.replaced = _merged(ledger.replaced, [record["name"] for record in journal.of("replaced")])
    ledger.host_key = ledger.host_key or journal.has("host_key")
    ledger.volumes = _volumes(root, ledger, manifest)
    ledger.files, ledger.units = wanted, [unit["name"] for unit in manifest["units"]]
    return ledger


def restore_original(root: Root, ledger: Ledger, path: str) -> None:
    """Take kOS's file at `path` away; what was there before it comes back."""
    row = ledger.originals.get(path, {"path": path, "kind": "absent", "directories": []})
    originals.restore(root, row, root.state(ORIGINALS))
    originals.drop_empty(root, ledger.directories)


def sweep_originals(root: Root, ledger: Ledger) -> None:
    """Drop kept content that the ledger no longer refers to."""
    folder = root.state(ORIGINALS)
    kept = {row.get("original") for row in ledger.originals.values()}
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name not in kept:
            files.remove(os.path.join(folder, name))
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)


def kept_volumes(root: Root, ledger: Ledger, manifest: dict[str, Any] | None) -> list[dict[str, str]]:
    """The data volumes on this node that the generation does not ask for."""
    wanted = {row["path"] for row in (manifest or {}).get("volumes", [])}
    return [row for row in ledger.volumes if row["path"] not in wanted and os.path.isdir(root.join(row["path"]))]


def _adopt_originals(root: Root, ledger: Ledger, wanted: set[str], journal: Journal) -> None:
    ledger.originals = {path: row for path, row in ledger.originals.items() if path in wanted}
    owned = set(ledger.files)
    folder = root.state(ORIGINALS)
    for record in journal.of("file"):
        path = record["path"]
        if path not in wanted or path in owned or record["kind"] == "absent":
            continue
        row = {key: value for key, value in record.items() if key not in ("op", "at", "directories")}
        row["directories"] = []
        if record["kind"] == "file":
            os.makedirs(folder, mode=0o700, exist_ok=True)
            row["original"] = hashlib.sha3_256(path.encode()).hexdigest()
            content = files.read(os.path.join(journal.originals, record["original"])) or b""
            files.write(os.path.join(folder, row["original"]), content, 0o600)
        ledger.originals[path] = row


def _volumes(root: Root, ledger: Ledger, manifest: dict[str, Any]) -> list[dict[str, str]]:
    rows = {row["path"]: row for row in kept_volumes(root, ledger, manifest)}
    rows |= {row["path"]: row for row in manifest.get("volumes", [])}
    return [rows[path] for path in sorted(rows)]


def _merged(old: list[str], new: list[str]) -> list[str]:
    return sorted({*old, *new})
