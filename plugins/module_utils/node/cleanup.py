# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a commit: remove what kOS brought and nothing asks for any more. Found from the ledger, so a crash resumes.

It comes after the commit because a package that has gone is the one thing that a revert could not bring back
without a network.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import Any

from . import accounts, files, ledger, originals, packages
from .encryption import holding
from .files import NodeError, Root
from .ledger import Ledger


@dataclass(frozen=True)
class Leftovers:
    """What is to be removed; `users` of a volume that stays are not in it.

    `held` are packages that nothing asks for, and the directory whose data their removal would delete.
    """

    packages: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """(kind, name) of each, in the order of removal."""
        return [
            *(("package", name) for name in self.packages),
            *(("volume", name) for name in self.volumes),
            *(("user", name) for name in self.users),
            *(("group", name) for name in self.groups),
        ]


def find(
    root: Root, manifest: dict[str, Any] | None, book: Ledger, known: dict[str, packages.Package], purge: bool = False
) -> Leftovers:
    """What the ledger has and `manifest` (None: nothing at all) does not ask for; volumes with data only to `purge`."""
    asked = (manifest or {}).get("packages", [])
    # A package that somebody has asked apt for meanwhile is no longer kOS's to remove.
    ours = set(book.packages) - packages.marked_manual(root, book.packages)
    going = packages.no_longer_needed(known, ours, asked)
    # One that had configuration before is removed but not purged, which deletes nothing.
    held = packages.with_data(root, going - set(book.configured))
    if held:
        going = packages.no_longer_needed(known, ours, [*asked, *held])
    unasked = [row["path"] for row in ledger.kept_volumes(root, book, manifest)]
    volumes = [path for path in unasked if purge or not os.listdir(root.join(path))]
    staying = {row["user"] for row in book.volumes if row["path"] not in volumes and _exists(root, row["path"])}
    needed = {*staying, *(manifest or {}).get("users", [])}
    present = accounts.known(root)
    users = [name for name in present["users"] if name in book.users and name not in needed]
    # A user's own group goes with it.
    groups = [name for name in present["groups"] if name in book.groups and name not in book.users]
    named = accounts.named_elsewhere(root, {*users, *groups} - {row["user"] for row in book.volumes}, going)
    users, groups = [name for name in users if name not in named], [name for name in groups if name not in named]
    return Leftovers(sorted(going), sorted(volumes), users, groups, held)


def run(root: Root, manifest: dict[str, Any] | None, purge: bool = False) -> list[str]:
    """Remove what `find` names. Returns a sentence for each thing that stayed although it should go."""
    book = ledger.load(root)
    try:
        left = _run(root, manifest, book, purge)
    except NodeError as error:
        left = [str(error)]
    drop_timer_stamps(root, manifest)
    originals.drop_empty(root, book.directories)
    book.directories = [folder for folder in book.directories if os.path.isdir(root.join(folder))]
    ledger.sweep_originals(root, book)
    ledger.save(root, book)
    return left


def drop_timer_stamps(root: Root, manifest: dict[str, Any] | None) -> None:
    """Forget when kOS's timers ran last, but for those of `manifest`."""
    kept = {f"stamp-{unit['name']}" for unit in (manifest or {}).get("units", [])}
    folder = root.join("/var/lib/systemd/timers")
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.startswith("stamp-kos-") and name not in kept:
            files.remove(os.path.join(folder, name))


def _drop_volume(path: str) -> str | None:
    """Delete a data volume; a sentence where its data lies elsewhere or cannot go."""
    if os.path.islink(path) or os.path.ismount(path):
        kind = f"a link to {os.path.realpath(path)}" if os.path.islink(path) else "a file system of its own"
        return f"volume {path}: is {kind}, which kOS did not make: remove its data yourself"
    try:
        shutil.rmtree(path)
    except OSError as error:
        return f"volume {path}: {files.spoken(error)}"
    return None


def _run(root: Root, manifest: dict[str, Any] | None, book: Ledger, purge: bool) -> list[str]:
    known = packages.table(root)
    leftovers = find(root, manifest, book, known, purge)
    packages.purge(root, leftovers.packages, book.configured, book.made)
    for path in leftovers.volumes:
        holding.release(root, path)
    left = [sentence for path in leftovers.volumes if (sentence := _drop_volume(root.join(path)))]
    _forget(root, book, manifest)
    # What the packages' own removal scripts deleted is no longer there to be found.
    leftovers = find(root, manifest, book, packages.table(root), purge)
    left += [f"package {name}: stays, since something else needs it" for name in leftovers.packages]
    left += [
        f"package {name}: stays, since removing it would delete the data in {folder}, which is not kOS's: "
        f"keep it for yourself with 'apt-mark manual {name}', or remove that data, then run again"
        for name, folder in leftovers.held.items()
    ]
    book.packages = [name for name in book.packages if name not in leftovers.packages]
    left += accounts.remove(root, leftovers.users, leftovers.groups)
    present = accounts.known(root)
    book.users = {name: ids for name, ids in book.users.items() if name in present["users"]}
    book.groups = [name for name in book.groups if name in present["groups"]]
    return left


def _forget(root: Root, book: Ledger, manifest: dict[str, Any] | None) -> None:
    """Strike out what has gone, and packages that somebody else has asked for."""
    known = packages.table(root)
    manual = packages.marked_manual(root, book.packages)
    here = {name for name, package in known.items() if package.status != "not-installed"}
    book.packages = [name for name in book.packages if name in here and name not in manual]
    book.configured = [name for name in book.configured if name in book.packages]
    book.made = [path for path in book.made if os.path.lexists(root.join(path))]
    asked = (manifest or {}).get("volumes", [])
    book.volumes = [row for row in book.volumes if row in asked or _exists(root, row["path"])]


def _exists(root: Root, path: str) -> bool:
    return os.path.isdir(root.join(path))
