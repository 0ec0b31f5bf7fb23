# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What separates the node as observed from a generation: a list of changes, nothing done yet.

Every decision comes from observed state. Whether a daemon runs with its present configuration is known
from a stamp: the digest of everything it was started with, dropped before any of that is touched.
"""

from __future__ import annotations

import os
import stat
from dataclasses import asdict, dataclass, field
from typing import Any

from . import files, merkle, store, system
from .files import Root
from .join import Joiner
from .secrets import Vault

# The order in which parts of a generation are switched; each is a role of the collection.
PARTS = ("kernel_extensions", "firewall", "base_services", "agent_modules", "environment_adapters")
_UNITS = "/etc/systemd/system"
_TIER_PARTS = ("kernel_extensions", "base_services", "agent_modules", "environment_adapters")


def part_of(tier: int, service: dict[str, Any] | None) -> str:
    """The part that a service of `tier` belongs to."""
    if service and "firewall" in service["capabilities"]:
        return "firewall"
    return _TIER_PARTS[tier]


@dataclass(frozen=True)
class Change:
    """One thing that will be done: `kind` and `action` say what, `part` when."""

    kind: str
    name: str
    action: str
    part: str
    service: str = ""

    def as_dict(self) -> dict[str, str]:
        """The change as plain data."""
        return asdict(self)


@dataclass
class Wanted:
    """One file of the generation with its final content for this node; None where it can only be made at switch."""

    row: dict[str, Any]
    content: bytes | None
    inputs: str
    differs: bool
    exists: bool


@dataclass
class Comparison:
    """The outcome of comparing a node with a generation."""

    generation: store.Generation
    wanted: list[Wanted]
    inputs: dict[str, str]
    changes: list[Change] = field(default_factory=list)
    missing_packages: list[str] = field(default_factory=list)

    def parts(self) -> list[str]:
        """The parts that have work, in switch order; at least one when there is any change."""
        named = {change.part for change in self.changes}
        return [part for part in PARTS if part in named]


def compare(root: Root, generation: store.Generation, given_secrets: dict[str, str]) -> Comparison:
    """Everything that must change for `root` to be `generation`.

    `given_secrets` are the operator's own, by ``service.name``. Raises UnknownToken and CommandFailed.
    """
    manifest = generation.manifest
    services = {service["name"]: service for service in manifest["services"]}
    vault = Vault(root)
    # A root that is not booted has no key to seal with: its first boot makes its secrets.
    stale_secrets = vault.missing(manifest["secrets"], given_secrets) if root.path == "/" else []
    observed = _Observed(
        root, generation, Joiner(root), system.Accounts(root), vault,
        files.read_json(root.state("sealed.json"), {}), stale_secrets,
    )  # fmt: skip
    wanted = [_wanted(observed, row) for row in manifest["files"]]
    comparison = Comparison(generation, wanted, _unit_inputs(generation, wanted))
    add = comparison.changes.append
    for name in stale_secrets:
        service = services[name.split(".")[0]]
        add(Change("secret", name, "make", part_of(service["tier"], service), service["name"]))
    installed = system.installed_packages(root)
    comparison.missing_packages = [name for name in manifest["packages"] if name not in installed]
    for name in comparison.missing_packages:
        add(Change("package", name, "install", PARTS[0]))
    for entry in wanted:
        if entry.differs:
            row = entry.row
            part = part_of(row["tier"], services.get(row["service"])) if row["phase"] == "tier" else PARTS[0]
            add(Change("file", row["path"], "update" if entry.exists else "create", part, row["service"]))
    comparison.changes += _removals(root, manifest)
    if root.booted:
        comparison.changes += _unit_changes(root, comparison, services)
    active = store.current(root)
    if active is None or active.id != generation.id:
        add(Change("generation", generation.id[:12], "switch", PARTS[0]))
    return comparison


def stamp_path(root: Root, unit: str) -> str:
    """Where the digest of what `unit` was started with is kept."""
    return root.state("started", unit)


@dataclass(frozen=True)
class _Observed:
    """What every file is compared with, read once for all of them."""

    root: Root
    generation: store.Generation
    joiner: Joiner
    accounts: system.Accounts
    vault: Vault
    sealed_record: dict[str, Any]
    stale_secrets: list[str]


def _wanted(observed: _Observed, row: dict[str, Any]) -> Wanted:
    path = observed.root.join(row["path"])
    exists = os.path.lexists(path)
    if "link" in row:
        present = os.readlink(path) if os.path.islink(path) else None
        return Wanted(row, None, row["link"], present != row["link"], exists)
    source = observed.generation.content(row["source"])
    if "sealed" in row:
        return _wanted_sealed(observed, row, source, files.read(path))
    content = observed.joiner.join(source)
    return Wanted(row, content, merkle.digest(content), _differs(observed.accounts, path, row, content), exists)


def _wanted_sealed(observed: _Observed, row: dict[str, Any], source: bytes, present: bytes | None) -> Wanted:
    if observed.root.path != "/":
        return Wanted(row, None, "", False, False)
    inputs = sealed_inputs(source, observed.generation.manifest, row, observed.vault)
    record = observed.sealed_record.get(row["path"], {})
    same = present is not None and record == {"inputs": inputs, "digest": merkle.digest(present)}
    stale = any(f"@kos:secret:{name}@".encode() in source for name in observed.stale_secrets)
    return Wanted(row, None, inputs, not same or stale, present is not None)


def sealed_inputs(source: bytes, manifest: dict[str, Any], row: dict[str, Any], vault: Vault) -> str:
    """The digest of a sealed file's template and of the secrets it uses, none of which it reveals."""
    names = [f"{entry['service']}.{entry['name']}" for entry in manifest["secrets"]]
    used = [name for name in names if f"@kos:secret:{name}@".encode() in source]
    leaves = [("template", merkle.digest(source)), ("name", merkle.digest(row["sealed"].encode()))]
    return merkle.root([*leaves, *((name, vault.version(name)) for name in used)])


def _differs(accounts: system.Accounts, path: str, row: dict[str, Any], content: bytes) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != int(row["mode"], 8):
        return True
    if (status.st_uid, status.st_gid) != accounts.ids(row["owner"], row["group"]):
        return True
    return files.read(path) != content


def _unit_inputs(generation: store.Generation, wanted: list[Wanted]) -> dict[str, str]:
    """For each systemd unit, the digest of everything it is started with."""
    leaves: dict[str, list[tuple[str, str]]] = {unit["name"]: [] for unit in generation.manifest["units"]}
    for entry in wanted:
        for unit in entry.row["units"]:
            if unit in leaves:
                digest = merkle.digest(f"{entry.inputs} {entry.row['mode']}".encode())
                leaves[unit].append((entry.row["path"], digest))
    for unit in generation.manifest["units"]:
        if unit["runs_node_code"]:
            leaves[unit["name"]].append(("node", generation.node_code_digest()))
    return {unit: merkle.root(rows) for unit, rows in leaves.items()}


def _removals(root: Root, manifest: dict[str, Any]) -> list[Change]:
    """What the ledger says kOS owns and the generation no longer asks for."""
    ledger = files.read_json(root.state("ledger.json"), {})
    kept_files = {row["path"] for row in manifest["files"]}
    kept_units = {unit["name"] for unit in manifest["units"]}
    paths = [path for path in ledger.get("files", []) if path not in kept_files and os.path.lexists(root.join(path))]
    # A unit is stopped before its file goes: without the file it has been.
    units = [name for name in ledger.get("units", []) if name not in kept_units and f"{_UNITS}/{name}" in paths]
    return [
        *(Change("unit", name, "stop", PARTS[0]) for name in units),
        *(Change("file", path, "remove", PARTS[0]) for path in paths),
    ]


def _unit_changes(root: Root, comparison: Comparison, services: dict[str, Any]) -> list[Change]:
    rows = comparison.generation.manifest["units"]
    states = system.unit_states(row["name"] for row in rows)
    touched = {unit for entry in comparison.wanted if entry.differs for unit in entry.row["units"]}
    touched_paths = {entry.row["path"] for entry in comparison.wanted if entry.differs}
    found = []
    for row in rows:
        if row["starts"] != "now":
            # Something else starts it: its own start may even be what runs this very comparison.
            continue
        name, state = row["name"], states[row["name"]]
        stamp = files.read(stamp_path(root, name))
        stale = name in touched or stamp is None or stamp.decode() != comparison.inputs[name]
        running = state.get("ActiveState") in ("active", "reloading")
        # Reading its files again is enough for a running daemon only where its unit is the one it was started by.
        # A credential is read at the start only.
        sealed_anew = any(
            entry.differs and "sealed" in entry.row and name in entry.row["units"] for entry in comparison.wanted
        )
        same_unit = row["oneshot"] or (stamp is not None and f"{_UNITS}/{name}" not in touched_paths)
        reloads = row["on_change"] == "reload" and same_unit and not sealed_anew
        action = "start" if not running else ("reload" if reloads else "restart") if stale else None
        if action:
            found.append(Change("unit", name, action, part_of(row["tier"], services[row["service"]]), row["service"]))
    return found


def diffs(root: Root, comparison: Comparison) -> list[dict[str, str]]:
    """Before and after of every text file that changes, as Ansible's ``--diff`` wants them; never a sealed one."""
    rows = []
    for entry in comparison.wanted:
        if not entry.differs:
            continue
        path = entry.row["path"]
        if entry.content is None:
            after = f"-> {entry.row['link']}\n" if "link" in entry.row else "(sealed)\n"
            before = "(present)\n" if entry.exists else ""
        else:
            after = entry.content.decode(errors="replace")
            before = (files.read(root.join(path)) or b"").decode(errors="replace")
        rows.append({"before": before, "after": after, "before_header": path, "after_header": path})
    return rows
