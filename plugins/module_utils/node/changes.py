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

from . import accounts, cleanup, cluster, files, images, ledger, merkle, packages, settings, store, system
from .files import Root
from .join import Joiner
from .secrets import Vault

# The order in which parts of a generation are switched; each is a role of the collection.
PARTS = (
    "rootless_runtime", "firewall", "kernel_extensions", "base_services", "agent_modules", "environment_adapters",
    "intrusion_detection", "hardening",
)  # fmt: skip
# What no part is named for: packages, users, removals. It comes with whichever part is switched first.
SHARED = "kernel_extensions"
UNITS = "/etc/systemd/system"
QUADLETS = "/etc/containers/systemd"
_RUNNING = ("active", "reloading", "activating")
_UNASKED = "no longer asked for"
_DETECTION = {"intrusion_detection", "integrity", "audit"}
_TIER_PARTS = ("kernel_extensions", "base_services", "agent_modules", "environment_adapters")


def part_of(tier: int, service: dict[str, Any] | None) -> str:
    """The part that a service of `tier` belongs to."""
    if service and "firewall" in service["capabilities"]:
        return "firewall"
    if service and "container_runtime" in service["capabilities"]:
        return "rootless_runtime"
    if service and "hardening" in service["capabilities"]:
        return "hardening"
    if service and _DETECTION & set(service["capabilities"]):
        return "intrusion_detection"
    return _TIER_PARTS[tier]


def _early_part(service: dict[str, Any] | None) -> str:
    """The part named for a file that is in place before any part: the runtime's own, else nobody's."""
    runtime = service is not None and part_of(service["tier"], service) == "rootless_runtime"
    return "rootless_runtime" if runtime else SHARED


@dataclass(frozen=True)
class Change:
    """One thing that will be done: `kind` and `action` say what, `part` when, `why` what was found."""

    kind: str
    name: str
    action: str
    part: str
    service: str = ""
    why: str = ""

    def as_dict(self) -> dict[str, str]:
        """The change as plain data."""
        return asdict(self)


@dataclass
class Wanted:
    """One file of the generation with its final content for this node; None where it can only be made at switch."""

    row: dict[str, Any]
    content: bytes | None
    inputs: str
    why: str
    exists: bool

    @property
    def differs(self) -> bool:
        """Whether the file must be written; `why` says what was found instead."""
        return bool(self.why)


@dataclass
class Comparison:
    """The outcome of comparing a node with a generation."""

    generation: store.Generation
    wanted: list[Wanted]
    inputs: dict[str, str]
    changes: list[Change] = field(default_factory=list)
    missing_packages: list[str] = field(default_factory=list)
    missing_images: list[dict[str, Any]] = field(default_factory=list)

    def parts(self) -> list[str]:
        """The parts that have work, in switch order; at least one when there is any change."""
        named = {change.part for change in self.changes}
        return [part for part in PARTS if part in named]


def compare(
    root: Root,
    generation: store.Generation,
    given_secrets: dict[str, str],
    purge: bool = False,
    node: dict[str, Any] | None = None,
) -> Comparison:
    """Everything that must change for `root` to be `generation`.

    `given_secrets` are the operator's own, by ``service.name``; `purge` asks for the data of services that are no
    longer asked for to be removed too. `node` is what the controller says of this node; by default, what it said
    last. Raises UnknownToken, NotAMember and CommandFailed.
    """
    manifest = generation.manifest
    services = {service["name"]: service for service in manifest["services"]}
    vault = Vault(root)
    # A root that is not booted has no key to seal with: its first boot makes its secrets.
    stale_secrets = vault.missing(manifest["secrets"], given_secrets) if root.path == "/" else []
    member_of = cluster.of(node or files.read_json(root.state("node.json"), {}))
    observed = _Observed(
        root, generation, Joiner(root, cluster=member_of), system.Accounts(root), vault,
        files.read_json(root.state("sealed.json"), {}), stale_secrets,
    )  # fmt: skip
    wanted = [_wanted(observed, row) for row in manifest["files"]]
    comparison = Comparison(generation, wanted, _unit_inputs(generation, wanted))
    add = comparison.changes.append
    for name in stale_secrets:
        # A fallback keeps the secrets of the service that it replaces.
        service = services.get(name.split(".")[0])
        why = "the operator gave another" if name in given_secrets else "missing"
        part = part_of(service["tier"], service) if service else SHARED
        add(Change("secret", name, "make", part, name.split(".")[0], why))
    known = packages.table(root)
    installed = {name for name, package in known.items() if package.status == "installed"}
    comparison.missing_packages = [
        name
        for name in manifest["packages"]
        if name not in installed and not packages.stood_in_for(known, manifest.get("unless", {}).get(name))
    ]
    for name in comparison.missing_packages:
        add(Change("package", name, "install", SHARED, why="not installed"))
    comparison.changes += _user_changes(root, generation)
    comparison.missing_images = images.missing(root, generation)
    for row in comparison.missing_images:
        add(
            Change(
                "image",
                f"{row['repository']}@{row['digest'][:19]}…",
                "load",
                "rootless_runtime",
                row["service"],
                "not loaded",
            )
        )
    for entry in wanted:
        if entry.differs:
            row = entry.row
            service = services.get(row["service"])
            part = part_of(row["tier"], service) if row["phase"] == "tier" else _early_part(service)
            add(Change("file", row["path"], "update" if entry.exists else "create", part, row["service"], entry.why))
    book = ledger.load(root)
    comparison.changes += _removals(root, manifest, book)
    if root.booted:
        comparison.changes += _unit_changes(root, comparison, services)
        comparison.changes += _setting_changes(root, manifest, services)
        comparison.changes += _daemon_changes(root, comparison, services)
    active = store.current(root)
    if active is None or active.id != generation.id:
        add(Change("generation", generation.id[:12], "switch", SHARED, why="another one is current"))
    elif active.alternative != generation.alternative:
        why = f"moves away from {generation.alternative}" if generation.alternative else "a fallback is in force"
        add(Change("generation", generation.id[:12], "switch", SHARED, why=why))
    for kind, name in cleanup.find(root, manifest, book, known, purge).rows():
        add(Change(kind, name, "remove", SHARED, why=_UNASKED))
    return comparison


def definitions(unit: str) -> list[str]:
    """Where a systemd unit may be defined: as itself, or as the Quadlet that systemd makes it from."""
    return [f"{UNITS}/{unit}", f"{QUADLETS}/{unit.rpartition('.')[0]}.container"]


def stamp_path(root: Root, unit: str) -> str:
    """Where the digest of what `unit` was started with is kept."""
    return root.state("started", unit)


def live_path(root: Root, unit: str) -> str:
    """Where the digest of what `unit` has made in the kernel is kept."""
    return root.state("started", f"{unit}.live")


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
        why = "" if present == row["link"] else "missing" if not exists else f"is not a link to {row['link']}"
        return Wanted(row, None, row["link"], why, exists)
    source = observed.generation.content(row["source"])
    if "sealed" in row:
        return _wanted_sealed(observed, row, source, files.read(path))
    content = observed.joiner.join(source)
    return Wanted(row, content, merkle.digest(content), _difference(observed.accounts, path, row, content), exists)


def _wanted_sealed(observed: _Observed, row: dict[str, Any], source: bytes, present: bytes | None) -> Wanted:
    if observed.root.path != "/":
        return Wanted(row, None, "", "", False)
    inputs = sealed_inputs(source, observed.generation.manifest, row, observed.vault)
    record = observed.sealed_record.get(row["path"], {})
    same = present is not None and record == {"inputs": inputs, "digest": merkle.digest(present)}
    stale = any(f"@kos:secret:{name}@".encode() in source for name in observed.stale_secrets)
    why = (
        "missing" if present is None else "content differs" if not same else "its secret is made anew" if stale else ""
    )
    return Wanted(row, None, inputs, why, present is not None)


def sealed_inputs(source: bytes, manifest: dict[str, Any], row: dict[str, Any], vault: Vault) -> str:
    """The digest of a sealed file's template and of the secrets it uses, none of which it reveals."""
    names = [f"{entry['service']}.{entry['name']}" for entry in manifest["secrets"]]
    used = [name for name in names if f"@kos:secret:{name}@".encode() in source]
    leaves = [("template", merkle.digest(source)), ("name", merkle.digest(row["sealed"].encode()))]
    return merkle.root([*leaves, *((name, vault.version(name)) for name in used)])


def _difference(ids: system.Accounts, path: str, row: dict[str, Any], content: bytes) -> str:
    """What is wrong with the file, or nothing."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return "missing"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    found = []
    if stat.S_IMODE(status.st_mode) != int(row["mode"], 8):
        found.append(f"mode is {stat.S_IMODE(status.st_mode):04o}, not {row['mode']}")
    if (status.st_uid, status.st_gid) != ids.ids(row["owner"], row["group"]):
        found.append(f"does not belong to {row['owner']}:{row['group']}")
    if files.read(path) != content:
        found.append("content differs")
    return ", ".join(found)


def _unit_inputs(generation: store.Generation, wanted: list[Wanted]) -> dict[str, str]:
    """For each systemd unit, and each daemon of Debian's that reads our files, the digest of what it starts with."""
    readers = [*generation.manifest["units"], *generation.manifest.get("daemons", [])]
    leaves: dict[str, list[tuple[str, str]]] = {row["name"]: [] for row in readers}
    for entry in wanted:
        for unit in entry.row["units"]:
            if unit in leaves:
                digest = merkle.digest(f"{entry.inputs} {entry.row['mode']}".encode())
                leaves[unit].append((entry.row["path"], digest))
    for unit in generation.manifest["units"]:
        if unit["runs_node_code"]:
            leaves[unit["name"]].append(("node", generation.node_code_digest()))
    return {unit: merkle.root(rows) for unit, rows in leaves.items()}


def _user_changes(root: Root, generation: store.Generation) -> list[Change]:
    # In a root that is not booted the first boot makes them.
    rows = accounts.drift(root, generation) if root.path == "/" else []
    return [Change("user", name, action, SHARED, why=why) for name, action, why in rows]


def _removals(root: Root, manifest: dict[str, Any], book: ledger.Ledger) -> list[Change]:
    """What the ledger says kOS owns and the generation no longer asks for."""
    kept_files = {row["path"] for row in manifest["files"]}
    kept_units = {unit["name"] for unit in manifest["units"]}
    paths = [path for path in book.files if path not in kept_files and os.path.lexists(root.join(path))]
    # A unit is stopped before its file goes: without the file it has been.
    units = [name for name in book.units if name not in kept_units and set(definitions(name)) & set(paths)]
    return [
        *(Change("unit", name, "stop", SHARED, why=_UNASKED) for name in units),
        *(Change("file", path, "remove", SHARED, why=_UNASKED) for path in paths),
    ]


def _unit_changes(root: Root, comparison: Comparison, services: dict[str, Any]) -> list[Change]:
    rows = comparison.generation.manifest["units"]
    masked = {mask_of(entry.row): entry.row["service"] for entry in comparison.wanted if mask_of(entry.row)}
    states = system.unit_states([*(row["name"] for row in rows), *masked])
    touched = {unit for entry in comparison.wanted if entry.differs for unit in entry.row["units"]}
    touched_paths = {entry.row["path"] for entry in comparison.wanted if entry.differs}
    found = [
        Change("unit", name, "stop", SHARED, service, f"runs beside kOS's own {service}")
        for name, service in masked.items()
        if states[name].get("ActiveState") in _RUNNING
    ]
    for row in rows:
        if row["starts"] != "now":
            # Something else starts it: its own start may even be what runs this very comparison.
            continue
        name, state = row["name"], states[row["name"]]
        stamp = files.read(stamp_path(root, name))
        stale = name in touched or stamp is None or stamp.decode() != comparison.inputs[name]
        running = state.get("ActiveState") in _RUNNING[:2]
        # Reading its files again is enough for a running daemon only where its unit is the one it was started by.
        # A credential is read at the start only.
        sealed_anew = any(
            entry.differs and "sealed" in entry.row and name in entry.row["units"] for entry in comparison.wanted
        )
        same_unit = row["oneshot"] or (stamp is not None and not set(definitions(name)) & touched_paths)
        reloads = row["on_change"] == "reload" and same_unit and not sealed_anew
        why = _stale(root, row, running, stale)
        if why:
            action = "start" if not running else "reload" if reloads else "restart"
            part = part_of(row["tier"], services[row["service"]])
            found.append(Change("unit", name, action, part, row["service"], why))
    return found


def _setting_changes(root: Root, manifest: dict[str, Any], services: dict[str, Any]) -> list[Change]:
    """Values of the machine that must be set, and those that nothing asks for any more."""
    found = []
    for row in settings.differing(root, manifest):
        part = part_of(row.row["tier"], services[row.row["service"]])
        why = f"is {row.found}, not {row.setting.value}"
        found.append(Change(row.setting.kind, row.setting.name, "set", part, row.row["service"], why))
    leaving = settings.unasked(root, manifest)
    return [*found, *(Change(row.kind, row.name, "give back", SHARED, why=_UNASKED) for row in leaving)]


def _daemon_changes(root: Root, comparison: Comparison, services: dict[str, Any]) -> list[Change]:
    found = []
    for row in comparison.generation.manifest.get("daemons", []):
        stamp = files.read(stamp_path(root, row["name"]))
        if stamp is None or stamp.decode() != comparison.inputs[row["name"]]:
            part = part_of(row["tier"], services[row["service"]])
            found.append(Change("daemon", row["name"], "tell", part, row["service"], "has read other files than these"))
    return found


def _stale(root: Root, row: dict[str, Any], running: bool, stale: bool) -> str:
    """Why the unit must be acted on, or nothing."""
    if not running:
        return "does not run"
    if stale:
        return "runs with other files than these"
    recorded = files.read(live_path(root, row["name"]))
    if recorded is not None and recorded != live_digest(row):
        return "what it made was altered"
    return ""


def live_digest(row: dict[str, Any]) -> bytes | None:
    """The digest of what a unit keeps in the kernel, as its ``live`` command prints it; None where it has none."""
    if not row.get("live"):
        return None
    done = system.run(row["live"], check=False)
    return merkle.digest(done.stdout if done.returncode == 0 else b"").encode()


def mask_of(row: dict[str, Any]) -> str:
    """The systemd unit that a file of the generation masks, or nothing."""
    return os.path.basename(row["path"]) if row.get("link") == "/dev/null" else ""


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
