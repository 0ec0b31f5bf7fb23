# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor finds: every drift with the command that mends it."""

from __future__ import annotations

import glob
import os
import stat
from typing import Any

from . import backup, changes, fallback, files, gate, integrity, ledger, store, system, trust
from .encryption import record as encryption
from .encryption import state as encryption_state
from .files import Root
from .journal import Journal

_DEPLOY = "kai deploy"
_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system")


def findings(root: Root) -> list[dict[str, Any]]:
    """What is not as it should be. Where a deploy mends it, `change` is the change that it will make."""
    if os.path.exists(root.state("uninstalling")):
        return [_finding("node", "an uninstall was begun and has not ended", "kai uninstall")]
    generation = store.current(root)
    if generation is None:
        return [_finding("node", "no generation has been deployed here", "kai deploy --profile personal_node")]
    if encryption.locked(root):
        # All else follows from that.
        return _encryption(root)
    manifest = generation.manifest
    return [
        *_encryption(root),
        *_open_transaction(root),
        *_fallback(root),
        *_unsigned(root, generation),
        *(_of_change(change) for change in changes.compare(root, generation, {}).changes),
        *_overrides(manifest),
        *_held_packages(root, manifest),
        *_volumes(root, manifest),
        *_foreign_listeners(manifest),
        *_sick(manifest),
        *(_finding("backup", problem, fix) for problem, fix in backup.findings(root)),
        *(_finding("aide", problem, fix) for problem, fix in integrity.findings(root, manifest)),
    ]


def _finding(what: str, problem: str, fix: str, **more: Any) -> dict[str, Any]:
    return {"what": what, "problem": problem, "fix": fix, **more}


def _encryption(root: Root) -> list[dict[str, Any]]:
    return [_finding("encryption", text, fix) for text, fix in encryption_state.findings(encryption_state.state(root))]


def _of_change(change: changes.Change) -> dict[str, Any]:
    problem = f"{change.kind} {change.name}: {change.why or 'needs ' + change.action}"
    short = {"kind": change.kind, "name": change.name, "action": change.action}
    return _finding(change.service or change.kind, problem, _DEPLOY, change=short)


def _open_transaction(root: Root) -> list[dict[str, Any]]:
    journal = Journal(root)
    if not (journal.open and journal.switched):
        return []
    problem = "a change was begun and not committed"
    return [_finding("generation", problem, f"{_DEPLOY} (or wait: it goes back by itself)")]


def _fallback(root: Root) -> list[dict[str, Any]]:
    row = fallback.in_force(root)
    return [_finding(row["service"], f"a fallback is in force: {fallback.said(row)}", _DEPLOY)] if row else []


def _unsigned(root: Root, generation: store.Generation) -> list[dict[str, Any]]:
    try:
        trust.verify(root, generation.id, generation.signature)
    except trust.Untrusted:
        return [_finding("generation", "nobody this node trusts has signed the current generation", _DEPLOY)]
    return []


_GENERATED = "/run/systemd/generator"


def _overrides(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Systemd units that do not run from kOS's own file alone."""
    ours = {row["path"] for row in manifest["files"]}
    services = {row["name"]: row["service"] for row in manifest["units"]}
    found = []
    for name, state in system.unit_states(services, "Id,DropInPaths,FragmentPath").items():
        # What systemd has not read yet takes effect at its next reload.
        read = [path for path in state.get("DropInPaths", "").split() if f"/{name}.d/" in path]
        unread = [path for folder in _FOLDERS for path in glob.glob(f"{folder}/{glob.escape(name)}.d/*.conf")]
        foreign = [path for path in sorted({*read, *unread}) if path not in ours]
        fragment = state.get("FragmentPath", "")
        # What systemd makes of a Quadlet of ours is ours.
        quadlet = set(changes.definitions(name)) & ours and fragment == f"{_GENERATED}/{name}"
        if fragment and fragment != f"{changes.UNITS}/{name}" and fragment not in ours and not quadlet:
            foreign.append(fragment)
        for path in foreign:
            fix = f"rm {path} && systemctl daemon-reload && systemctl restart {name}"
            found.append(_finding(services[name], f"unit {name}: is overridden by {path}", fix))
    return found


def _held_packages(root: Root, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Packages that get no security updates."""
    held = system.run(system.in_root(root, ["apt-mark", "showhold"]), check=False).stdout.decode().split()
    return [
        _finding("package", f"package {name}: is held back from updates", f"apt-mark unhold {name}")
        for name in held
        if name in manifest["packages"]
    ]


def _volumes(root: Root, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Data directories that are gone or that others may read."""
    ids = system.Accounts(root)
    book = ledger.load(root)
    committed = {row["path"] for row in book.volumes}
    # What a timer or a command starts makes its directory when it runs first.
    begun = {row["name"] for row in manifest["units"] if row["starts"] == "now"}
    found = []
    for row in manifest.get("volumes", []):
        path, user = row["path"], row["user"]
        try:
            status = os.stat(root.join(path))
        except FileNotFoundError:
            if path in committed and row["unit"] in begun:
                fix = f"kai restore, or for an empty one: systemctl restart {row['unit']}"
                found.append(_finding(row["service"], f"volume {path}: is missing", fix))
            continue
        if stat.S_IMODE(status.st_mode) & 0o007 and not row.get("shared"):
            problem = f"volume {path}: mode is {stat.S_IMODE(status.st_mode):04o}, so others may look into it"
            found.append(_finding(row["service"], problem, f"chmod o= {path}"))
        if status.st_uid != ids.ids(user, user)[0]:
            found.append(
                _finding(row["service"], f"volume {path}: does not belong to {user}", f"chown -R {user}: {path}")
            )
    return found


def _foreign_listeners(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Processes of others on ports that the plan gives to a service."""
    ours = {unit["name"] for unit in manifest["units"]}
    planned = {(row["protocol"], str(row["port"])): row["service"] for row in manifest["ports"]}
    found = []
    for protocol, port, process, unit in _listeners():
        service = planned.get((protocol, port))
        if service and unit not in ours:
            fix = f"systemctl disable --now {unit}" if unit.endswith(".service") else f"kill {process}"
            who = unit if unit.endswith(".service") else f"process {process}"
            row = _finding(service, f"port {port}/{protocol}: {who} listens on it", fix)
            found += [] if row in found else [row]
    return found


def _listeners() -> list[tuple[str, str, str, str]]:
    """(protocol, port, process id, systemd unit) of every listening socket."""
    found = []
    for line in system.run(["ss", "-Htulnp"], check=False).stdout.decode().splitlines():
        columns = line.split()
        processes = [part.partition(",")[0] for part in line.split("pid=")[1:]]
        for process in processes:
            found.append((columns[0], columns[4].rpartition(":")[2], process, _unit_of(process)))
    return found


def _unit_of(process: str) -> str:
    path = (files.read(f"/proc/{process}/cgroup") or b"").decode().strip()
    names = [part for part in path.split("/") if part.endswith((".service", ".scope"))]
    return names[-1] if names else ""


def _sick(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    units = {row["name"]: row["units"] for row in manifest["services"]}
    for row in gate.check_once(manifest["services"]):
        if not row.healthy:
            names = units[row.service]
            found.append(_finding(row.service, row.detail, f"journalctl -u {names[0]} -n 50" if names else _DEPLOY))
    return found
