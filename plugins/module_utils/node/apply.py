# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a part of a generation real: packages, users, files, secrets, units. Each step is journalled first."""

from __future__ import annotations

import os
from typing import Any

from . import (
    accounts,
    bundle,
    changes,
    daemons,
    fallback,
    farewell,
    files,
    firststart,
    gate,
    images,
    ledger,
    merkle,
    packages,
    settings,
    store,
    system,
)
from .changes import Comparison
from .encryption import holding
from .files import Root
from .join import Joiner
from .journal import Journal
from .secrets import Vault, seal

HOST_KEY = "/var/lib/systemd/credential.secret"


def prepare(root: Root, journal: Journal, comparison: Comparison, given_secrets: dict[str, str]) -> None:
    """What comes before any part: removals, users, masks, packages, secrets, the link. Raises NodeError."""
    manifest = comparison.generation.manifest
    journal.write("current")
    _note_what_is_new(root, journal, comparison)
    _remove_orphans(root, journal, comparison)
    journal.keep_original(root, f"{files.STATE}/{fallback.RECORD}")
    fallback.note(root, comparison.generation.number, manifest.get("instead_of"), journal.begin.get("because", ""))
    store.point_current(root, comparison.generation.number)
    early = [entry for entry in comparison.wanted if entry.row["phase"] == "packages"]
    _write_files(root, journal, [entry for entry in early if entry.row["path"].startswith("/etc/sysusers.d/")])
    accounts.make(root, comparison.generation, ledger.load(root).users)
    _write_files(root, journal, early)
    if comparison.missing_packages:
        _install(root, journal, comparison.missing_packages)
    images.fetch(root, comparison.generation, comparison.missing_images)
    images.load(root, comparison.missing_images)
    holding.adopt(root, manifest)
    journal.write("accounts_made", **accounts.made_since(root, journal.of("accounts")[0]))
    if root.path == "/":
        vault = Vault(root)
        for name in vault.missing(manifest["secrets"], given_secrets):
            journal.keep_original(root, vault.path(name))
        vault.ensure(manifest["secrets"], given_secrets)
        firststart.begin(root)
    journal.write("prepared")


def _note_what_is_new(root: Root, journal: Journal, comparison: Comparison) -> None:
    """Record which accounts and data volumes are there already: a revert takes away the others."""
    if not journal.has("accounts"):
        journal.write("accounts", **accounts.known(root))
        paths = [row["path"] for row in comparison.generation.manifest.get("volumes", [])]
        journal.write("volumes", absent=[path for path in paths if not os.path.lexists(root.join(path))])
    if root.path == "/" and not os.path.exists(HOST_KEY) and not journal.has("host_key"):
        journal.write("host_key")


def _install(root: Root, journal: Journal, missing: list[str]) -> None:
    before = packages.paths_in_etc(root)
    source = bundle.source_of(root)
    journal.write("packages", **system.new_packages(root, missing, source))
    system.install_packages(root, missing, source)
    journal.write("packages_made", paths=sorted(set(packages.paths_in_etc(root)) - set(before)))


def _remove_orphans(root: Root, journal: Journal, comparison: Comparison) -> None:
    units = [change.name for change in comparison.changes if (change.kind, change.action) == ("unit", "stop")]
    _note_units(root, journal, units)
    book = ledger.load(root)
    if root.booted:
        masks = {changes.mask_of(entry.row): entry.row["path"] for entry in comparison.wanted}
        for name in units:
            if name in masks and masks[name] not in book.files and not journal.has("replaced", name=name):
                journal.write("replaced", name=name)
        leaving = farewell.gone(_manifest_before(root, journal), comparison.generation.manifest)
        farewell.run_exit_hooks(leaving)
        system.systemctl("stop", units)
        farewell.clear_away(root, leaving, journal.begin.get("because") or "nothing asks for it any more")
    paths = [change.name for change in comparison.changes if (change.kind, change.action) == ("file", "remove")]
    for path in paths:
        journal.keep_original(root, path)
        ledger.restore_original(root, book, path)
    if root.booted:
        manifest = comparison.generation.manifest
        left = settings.give_back(root, journal, settings.unasked(root, manifest))
        left += daemons.let_go(root, journal, daemons.gone(_manifest_before(root, journal), manifest))
        for sentence in left:
            farewell.tell(sentence, warning=True)
    again = [name for name in book.replaced if f"{changes.UNITS}/{name}" in paths]
    if root.booted and again:
        _note_units(root, journal, again)
        system.run(["systemctl", "daemon-reload"])
        system.systemctl("start", again, "--no-block")


def _manifest_before(root: Root, journal: Journal) -> dict[str, Any] | None:
    """The manifest of the generation that the open transaction replaces."""
    previous = store.load(root, journal.begin["previous"] or 0, journal.begin.get("previous_alternative", ""))
    return previous.manifest if previous else None


def switch_part(root: Root, journal: Journal, comparison: Comparison, part: str) -> None:
    """Write the files of `part` and bring its systemd units to them. Raises NodeError."""
    names = {(change.kind, change.name): change.action for change in comparison.changes if change.part == part}
    units = {name: action for (kind, name), action in names.items() if kind == "unit"}
    for unit in units:
        # From here on nobody can say what the daemon was started with.
        files.remove(changes.stamp_path(root, unit))
        files.remove(changes.live_path(root, unit))
    _note_units(root, journal, list(units))
    _write_files(root, journal, [entry for entry in comparison.wanted if ("file", entry.row["path"]) in names])
    _seal_files(root, journal, comparison, names)
    if not root.booted:
        return
    here = {change.name for change in comparison.changes if change.part == part and change.action == "set"}
    differing = settings.differing(root, comparison.generation.manifest)
    settings.set_all(root, journal, [row.setting for row in differing if row.setting.name in here])
    daemons.tell(root, journal, comparison, [name for kind, name in names if kind == "daemon"])
    touched = {change.service for change in comparison.changes if change.part == part}
    for service in comparison.generation.manifest["services"]:
        if set(service["units"]) & set(units) or (not service["units"] and service["name"] in touched):
            gate.run_hooks(service, "pre_init")
    if units or names:
        system.run(["systemctl", "daemon-reload"])
    system.systemctl("reset-failed", units)
    for unit in [name for name, action in units.items() if action == "reload"]:
        system.reload_unit(unit)
    for action in ("restart", "start"):
        system.systemctl(action, [name for name, wanted in units.items() if wanted == action], "--no-block")
    for unit in units:
        files.write(changes.stamp_path(root, unit), comparison.inputs[unit].encode())


def note_live(root: Root, comparison: Comparison, part: str) -> None:
    """Remember what the healthy units of `part` have made in the kernel, to notice when somebody alters it."""
    acted = {change.name for change in comparison.changes if change.kind == "unit" and change.part == part}
    for row in comparison.generation.manifest["units"]:
        if row["name"] in acted and root.booted and (digest := changes.live_digest(row)) is not None:
            files.write(changes.live_path(root, row["name"]), digest)


def _note_units(root: Root, journal: Journal, units: list[str]) -> None:
    """Record whether each unit runs now, before it is touched."""
    if not root.booted:
        return
    for name, state in system.unit_states(units).items():
        if not journal.has("unit", name=name):
            journal.write("unit", name=name, active=state.get("ActiveState") in ("active", "reloading", "activating"))


def _write_files(root: Root, journal: Journal, entries: list[changes.Wanted]) -> None:
    accounts = system.Accounts(root)
    for entry in entries:
        row = entry.row
        if not entry.differs or "sealed" in row:
            continue
        journal.keep_original(root, row["path"])
        path = root.join(row["path"])
        if "link" in row:
            files.link(path, row["link"])
        else:
            uid, gid = accounts.ids(row["owner"], row["group"])
            if -1 in (uid, gid):
                raise system.CommandFailed(f"{row['path']}: no user {row['owner']} or group {row['group']}")
            files.write(path, entry.content or b"", int(row["mode"], 8), uid, gid)


def _seal_files(root: Root, journal: Journal, comparison: Comparison, names: dict[tuple[str, str], str]) -> None:
    """Encrypt for this machine what only its daemons may read; a root that is not booted waits for its own key."""
    entries = [entry for entry in comparison.wanted if "sealed" in entry.row and ("file", entry.row["path"]) in names]
    if not entries or root.path != "/":
        return
    vault = Vault(root)
    joiner = Joiner(root, vault.reveal)
    journal.keep_original(root, f"{files.STATE}/sealed.json")
    record = files.read_json(root.state("sealed.json"), {})
    for entry in entries:
        row = entry.row
        source = comparison.generation.content(row["source"])
        content = seal(joiner.join(source, sealed=True), row["sealed"])
        journal.keep_original(root, row["path"])
        files.write(root.join(row["path"]), content, int(row["mode"], 8), 0, 0)
        inputs = changes.sealed_inputs(source, comparison.generation.manifest, row, vault)
        record[row["path"]] = {"inputs": inputs, "digest": merkle.digest(content)}
    files.write_json(root.state("sealed.json"), record)
