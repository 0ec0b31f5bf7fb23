# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage, switch part by part, commit once, or go back: one generation replaces another as one transaction.

A deadline on the node takes everything back when the commit does not arrive, whatever became of the
controller. Every step is found from observed state and the journal, so any of them may be interrupted.
"""

from __future__ import annotations

import os
import re
import secrets as randomness
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import (
    apply,
    bundle,
    changes,
    cleanup,
    facts,
    files,
    firststart,
    gate,
    history,
    images,
    ledger,
    space,
    spares,
    store,
    system,
    trust,
)
from .changes import Comparison
from .check import check_files
from .deadline import arm, disarm, forget, overdue
from .encryption import record as encryption
from .files import Busy, NodeError, Root
from .gate import Health
from .journal import Journal
from .machine import system_update
from .undo import take_back

DEADLINE = 180
# How many times as long the first start of an installed node may take: nobody waits for it, there is nothing to go back
# to, and all data and keys are made then, on however slow a machine.
_FIRST_START = 10
# A controller that is alive calls again within this many seconds.
_LEASE = 20
_SECRET = re.compile(r"[A-Za-z0-9._~+=/-]{12,4096}")


class NeedArchive(Exception):
    """The node does not have this generation: send it."""


class NeedImages(Exception):
    """The node does not have these images (rows of the generation's manifest): bring what you have."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(", ".join(row["digest"] for row in rows))
        self.rows = rows


class Superseded(NodeError):
    """The transaction that the caller began is no longer the node's open one."""


class SwitchFailed(NodeError):
    """A part did not become healthy; `reverted` tells whether the node is back where it was."""

    def __init__(self, message: str, health: list[Health], reverted: bool) -> None:
        super().__init__(message)
        self.health = health
        self.reverted = reverted


@dataclass
class Staged:
    """What `stage` found: no token means that there is nothing to do.

    `unknown_secrets` are names the operator gave and nothing of this generation uses.
    """

    changes: list[dict[str, str]]
    parts: list[str] = field(default_factory=list)
    token: str = ""
    number: int = 0
    download_bytes: int = 0
    diffs: list[dict[str, str]] = field(default_factory=list)
    recovered: bool = False
    unknown_secrets: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """What a controller asks of a node: which generation, and what belongs to this node alone.

    `signature` is by `signer` (a public key line), whom a node that trusts nobody yet comes to trust; without one,
    the signature that the node has stored counts. `over`: the id of the generation that
    must still be the current one. `bring`: whether the caller can bring images that are missing.
    `purge` gives up the data of services no longer asked for. `alternative` is the service of that generation which
    its fallback replaces, `because` the reason, and `sick` are the services that need not become healthy, since they
    were not before. `bundle`: archives that were sent of a bundle; then nothing is fetched from anywhere else.
    """

    id: str
    secrets: dict[str, str] = field(default_factory=dict)
    node: dict[str, Any] = field(default_factory=dict)
    signature: str = ""
    signer: str = ""
    purge: bool = False
    alternative: str = ""
    because: str = ""
    sick: tuple[str, ...] = ()
    bring: bool = False
    over: str = ""
    bundle: tuple[str, ...] = ()


@dataclass(frozen=True)
class Committed:
    """The generation that was kept, and a sentence for everything that should have gone after it and did not."""

    number: int
    left: list[str]


def stage(root: Root, request: Request, archive: bytes | None = None, patience: float = 30) -> Staged:
    """Compare, fetch and verify; open a transaction when there is work.

    Waits up to `patience` seconds for another run. Raises NeedArchive, NeedImages, NeedParts, Refused, BundleRefused,
    Untrusted, Busy, UnknownToken, NoRoom, NoImage, CommandFailed, OSError; on each the node is as it was.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return _stage(root, request, archive)
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(1)


def _stage(root: Root, request: Request, archive: bytes | None) -> Staged:
    with files.lock(root):
        encryption.require_open(root)
        generation = store.find(root, request.id, request.alternative)
        signature = request.signature or (generation.signature if generation else "")
        trust.verify(root, request.id, signature, request.signer)
        if request.signer:
            # Before a generation is stored: from then on nobody can be enrolled any more.
            trust.enrol(root, request.signer)
        _check_secrets(request.secrets)
        files.sweep_unfinished(root.state())
        recovered = settle(root)
        current = store.current(root)
        if request.over and (current is None or current.id != request.over):
            raise Superseded("this node has been changed meanwhile")
        for name in ("uninstalling", "KEPT"):
            files.remove(root.state(name))
        offered = _offered(root, request, bundle.folder_of(root))
        if generation is None:
            if archive is None:
                raise NeedArchive(request.id)
            space.require(root, [space.for_change(0)])
            generation = store.add(root, archive, request.id, signature)
        elif generation.signature != signature:
            # Signed anew, perhaps because the first signer is trusted no longer.
            files.write(os.path.join(generation.path, store.SIGNATURE), signature.encode())
        if offered:
            bundle.check_purpose(offered, generation.id, bundle.needs(generation.manifest))
        comparison = changes.compare(root, generation, request.secrets, request.purge, request.node)
        known = {f"{entry['service']}.{entry['name']}" for entry in generation.manifest["secrets"]}
        unknown = sorted(set(request.secrets) - known)
        if not comparison.changes:
            _drop_bundle(root, generation)
            _remember_node(root, request.node)
            return Staged([], recovered=recovered, unknown_secrets=unknown)
        system_update.require_none_waiting(root)
        check_files(root, comparison)
        if not offered and not request.alternative:
            # A move to an alternative is the node's own, with what a bundle brought for it.
            bundle.forget(root)
        size = _fetch_offered(root, comparison, offered) if offered else _fetch_all(root, request, comparison)
        token = randomness.token_hex(8)
        size += spares.fetch(root, generation, bundle.source_of(root))
        previous = store.current(root)
        Journal(root).start(
            token=token, generation=generation.number, id=generation.id,
            previous=previous.number if previous else None, node=request.node, purge=request.purge,
            alternative=generation.alternative, previous_alternative=previous.alternative if previous else "",
            because=request.because, sick=list(request.sick), time=int(time.time()),
        )  # fmt: skip
        rows = [change.as_dict() for change in comparison.changes]
        return Staged(
            rows, comparison.parts(), token, generation.number, size, recovered=recovered, unknown_secrets=unknown
        )


def check(root: Root, request: Request, archive: bytes | None, scratch: str) -> Staged:
    """What `stage`, `switch` and `commit` would do; changes nothing. `scratch` is an empty directory.

    Raises NeedArchive, Refused, BundleRefused, UnknownToken, NoRoom, CommandFailed.
    """
    generation = store.find(root, request.id)
    signature = request.signature or (generation.signature if generation else "")
    trust.verify(root, request.id, signature, request.signer)
    if generation is None:
        if archive is None:
            raise NeedArchive(request.id)
        generation = store.unpack(archive, request.id, scratch)
    offered = _offered(root, request, os.path.join(scratch, bundle.FOLDER))
    if offered:
        bundle.check_purpose(offered, generation.id, bundle.needs(generation.manifest))
    comparison = changes.compare(root, generation, request.secrets, request.purge, request.node)
    size = 0
    source = bundle.source_of(root, offered.folder) if offered else system.USUAL
    # apt's lists are refreshed beside the node's own, which stay as they are.
    lists = None if offered else scratch
    if comparison.missing_packages:
        size = sum(row.size for row in system.packages_to_fetch(root, comparison.missing_packages, lists, source))
        size += spares.sizes(root, generation.manifest, lists, source)
    if comparison.changes:
        _require_room(root, comparison, size, lists, source)
    rows = [change.as_dict() for change in comparison.changes]
    return Staged(rows, comparison.parts(), "", generation.number, size, changes.diffs(root, comparison))


def switch(root: Root, token: str, part: str, given_secrets: dict[str, str], deadline: int = DEADLINE) -> list[Health]:
    """Make one part of the staged generation real and wait for its services.

    Raises Superseded, or SwitchFailed after everything has been taken back.
    """
    with files.lock(root, wait=True):
        journal = _mine(root, token)
        generation = _staged_generation(root, journal)
        deadline *= _patience(root)
        try:
            arm(root, journal, generation, deadline)
            comparison = _switch(root, journal, generation, part, given_secrets, deadline)
            health = _gate(root, journal, comparison, part)
            if all(row.healthy for row in health):
                apply.note_live(root, comparison, part)
            arm(root, journal, generation, deadline)
            journal.write("switched", part=part)
        except Exception as error:
            raise SwitchFailed(f"{_spoken(part)}: {_said(error)}", [], _taken_back(root, journal)) from error
        sick = [row for row in health if not row.healthy]
        if sick:
            names = ", ".join(f"{row.service} ({row.detail})" for row in sick)
            raise SwitchFailed(f"{_spoken(part)} not healthy: {names}", health, _taken_back(root, journal))
        return health


def _switch(
    root: Root, journal: Journal, generation: store.Generation, part: str, given_secrets: dict[str, str], deadline: int
) -> Comparison:
    comparison = changes.compare(root, generation, given_secrets, node=journal.begin["node"])
    if comparison.missing_images:
        # A registry may be slow: the deadline counts from when they are here.
        arm(root, journal, generation, deadline + images.PULL)
    if not journal.has("prepared"):
        apply.prepare(root, journal, comparison, given_secrets)
        comparison = changes.compare(root, generation, given_secrets, node=journal.begin["node"])
    check_files(root, comparison, part)
    apply.switch_part(root, journal, comparison, part)
    return comparison


def _spoken(part: str) -> str:
    return part.replace("_", " ")


def _said(error: Exception) -> str:
    return files.spoken(error) if isinstance(error, OSError) else str(error)


def _taken_back(root: Root, journal: Journal) -> bool:
    """Revert, and say whether what ran before runs again."""
    try:
        return all(row.healthy for row in take_back(root, journal))
    except Exception:
        # The deadline stays armed and tries again.
        return False


def commit(root: Root, token: str) -> Committed:
    """Keep what was switched, then remove what is no longer asked for.

    Raises Superseded, or SwitchFailed after everything has been taken back.
    """
    with files.lock(root, wait=True):
        journal = _mine(root, token)
        generation = _staged_generation(root, journal)
        try:
            _write_down(root, generation, journal)
        except Exception as error:
            raise SwitchFailed(f"commit: {_said(error)}", [], _taken_back(root, journal)) from error
        purge = journal.begin["purge"]
        # The one step that decides: before it everything goes back, after it everything stays.
        journal.close()
        disarm(root)
        _drop_bundle(root, generation)
        store.prune(root)
        left = images.prune(root)
        return Committed(generation.number, [*left, *cleanup.run(root, generation.manifest, purge)])


def _write_down(root: Root, generation: store.Generation, journal: Journal) -> None:
    for name in ("ledger.json", "node.json", "pending", "history.json"):
        journal.keep_original(root, f"{files.STATE}/{name}")
    ledger.save(root, ledger.committed(root, generation.manifest, journal))
    _remember_node(root, journal.begin["node"])
    if root.booted:
        files.remove(root.state("pending"))
        firststart.end(root)
    else:
        firststart.rest(root, generation.manifest)
        files.write_json(root.state("pending"), {"generation": generation.number})
    # A move to a fallback, or back from it, is not another place to roll back to.
    moved = generation.alternative or (
        journal.begin.get("previous_alternative", "") if journal.begin["previous"] == generation.number else ""
    )
    history.record(root, generation.number, generation.id, "committed", moved, journal.begin.get("time"))


def revert(root: Root, token: str | None = None, only_overdue: bool = False) -> list[Health] | None:
    """Take back the open transaction (only the one with `token`, only past its deadline, where asked).

    Returns the health of the services after it, or None when there was nothing to take back.
    """
    with files.lock(root, wait=True):
        journal = Journal(root)
        if not journal.open or (token is not None and journal.begin["token"] != token):
            return None
        if only_overdue and not overdue(root):
            return None
        return take_back(root, journal)


def deploy(
    root: Root, request: Request, archive: bytes | None = None, patience: float = 30
) -> tuple[Staged, list[Health]]:
    """Stage, switch every part and commit in one go: for a node that acts alone."""
    staged = stage(root, request, archive, patience)
    health: list[Health] = []
    if staged.token:
        for part in staged.parts:
            health += switch(root, staged.token, part, request.secrets)
        commit(root, staged.token)
    return staged, health


def _check_secrets(given: dict[str, str]) -> None:
    """Refuse before anything happens a value that some daemon's configuration could not hold."""
    for name, value in given.items():
        if not isinstance(value, str) or not _SECRET.fullmatch(value):
            raise NodeError(f"the secret {name} must be text of 12 to 4096 letters, digits or any of . _ ~ + = / -")


def settle(root: Root) -> bool:
    """Deal with a transaction that another run left open. Returns whether one was taken back.

    Raises Busy while its controller may still be alive.
    """
    journal = Journal(root)
    if not journal.open or not journal.switched:
        # Only staged, or killed right after its commit: nothing is to be taken back, and the newer run wins.
        if not journal.open:
            journal.close()
        forget(root)
        return False
    if journal.at_rest and journal.seconds_idle() < _LEASE:
        left = _LEASE - journal.seconds_idle()
        raise Busy(
            f"another run began to change this node and has not committed; if it has died, "
            f"this node takes its changes back when you run again in {left:.0f} s"
        )
    take_back(root, journal)
    return True


def _mine(root: Root, token: str) -> Journal:
    journal = Journal(root)
    if not journal.open or journal.begin["token"] != token:
        raise Superseded("this run was overtaken by another one, or the node took it back: run again")
    return journal


def _staged_generation(root: Root, journal: Journal) -> store.Generation:
    generation = store.find(root, journal.begin["id"], journal.begin.get("alternative", ""))
    if generation is None:
        raise store.Refused("the staged generation was altered on the node: run again")
    return generation


def _offered(root: Root, request: Request, folder: str) -> bundle.Bundle | None:
    """The bundle of this request, proved to be for this node."""
    if not request.bundle:
        return None
    offered = bundle.receive(root, request.bundle, folder, trust.believed(root, request.signer))
    bundle.check_architecture(offered, facts.architecture())
    return offered


def _drop_bundle(root: Root, generation: store.Generation) -> None:
    """Remove what lies here of a bundle, unless an alternative of the generation would install a package from it."""
    if os.path.isdir(bundle.folder_of(root)) and not spares.packages_missing(root, generation.manifest):
        bundle.forget(root)


def _fetch_all(root: Root, request: Request, comparison: Comparison) -> int:
    """Ask the caller for images, then fetch what is missing from wherever it is; returns the bytes of packages."""
    generation = comparison.generation
    absent = images.not_stored(root, comparison.missing_images)
    spare = spares.images_not_stored(root, generation.manifest)
    if (absent or spare) and request.bring:
        raise NeedImages([*absent, *spare])
    if absent and images.can_fetch(absent):
        images.fetch(root, generation, absent)
    return _fetch(root, comparison)


def _fetch_offered(root: Root, comparison: Comparison, offered: bundle.Bundle) -> int:
    """Ask for what the node lacks, if it will fit, and have apt prove the packages; returns the bytes that came."""
    source, manifest = bundle.source_of(root), comparison.generation.manifest
    absent = [*comparison.missing_images, *spares.images_not_stored(root, manifest)]
    blobs = offered.blobs(row["digest"] for row in images.not_stored(root, absent))
    downloads: list[system.Download] = []
    if comparison.missing_packages:
        system.repair_packages(root, source)
        downloads = system.packages_to_fetch(root, comparison.missing_packages, source=source)
    packages = [bundle.path_of(row.uri) for row in downloads]
    spare = [bundle.path_of(row.uri) for row in spares.to_fetch(root, manifest, source=source)]
    parts = [path for path in blobs if not images.has_blob(root, path)]
    parts += [path for path in dict.fromkeys([*packages, *spare]) if not offered.holds(path)]
    if parts:
        size = offered.size(parts)
        _require_room(root, comparison, 0, source=source, more=[space.for_bundle(size)])
        raise bundle.NeedParts(parts)
    _require_room(root, comparison, 0, source=source)
    if packages:
        system.download_packages(root, comparison.missing_packages, source)
    return offered.size([*packages, *offered.blobs(row["digest"] for row in comparison.missing_images)])


def _fetch(root: Root, comparison: Comparison) -> int:
    """Download what is missing, if it will fit; returns its size in bytes."""
    if not comparison.missing_packages:
        _require_room(root, comparison, 0)
        return 0
    source = bundle.source_of(root)
    system.repair_packages(root, source)
    rows = system.packages_to_fetch(root, comparison.missing_packages, source=source)
    _require_room(root, comparison, sum(row.size for row in rows), source=source)
    book = ledger.load(root)
    # Beforehand, so that none is forgotten: what apt has in its cache already is not in `rows`.
    book.downloads = sorted({*book.downloads, *(row.name for row in rows)})
    ledger.save(root, book)
    system.download_packages(root, comparison.missing_packages, source)
    return sum(row.size for row in rows)


def _require_room(
    root: Root,
    comparison: Comparison,
    download: int,
    lists: str | None = None,
    source: system.Source = system.USUAL,
    more: Sequence[space.Need] = (),
) -> None:
    needs = [space.for_change(len(comparison.wanted)), *images.room_for(root, comparison.missing_images), *more]
    if comparison.missing_packages:
        installed = system.installed_bytes(root, comparison.missing_packages, lists, source)
        needs += space.for_packages(download, installed)
    space.require(root, needs)


def _gate(root: Root, journal: Journal, comparison: Comparison, part: str) -> list[Health]:
    if not root.booted:
        return []
    sick = journal.begin.get("sick", [])
    services = [
        service
        for service in comparison.generation.manifest["services"]
        if changes.part_of(service["tier"], service) == part and service["name"] not in sick
    ]
    updated = {change.service for change in comparison.changes if change.kind == "unit" and change.part == part}
    return gate.wait_healthy(services, hooks=True, updated=updated, patience=_patience(root))


def _patience(root: Root) -> int:
    return _FIRST_START if os.path.exists(root.state("pending")) else 1


def _remember_node(root: Root, node: dict[str, Any]) -> None:
    """Keep what the controller said of this node (accepted shortfalls and the like)."""
    if node and files.read_json(root.state("node.json"), None) != node:
        files.write_json(root.state("node.json"), node)
