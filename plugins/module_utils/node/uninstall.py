# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take kOS off this machine: everything in the ledger goes, what was there before comes back.

Nothing here is undone by a failure: each step is found from the ledger, and running it again goes on where it ended.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from . import (
    cleanup,
    daemons,
    deadline,
    farewell,
    files,
    firststart,
    images,
    ledger,
    originals,
    settings,
    store,
    system,
    transaction,
)
from .encryption import holding, record
from .files import NodeError, Root
from .ledger import Ledger

_ARCHIVES = "/var/cache/apt/archives"
_HOST_KEY = "/var/lib/systemd/credential.secret"
_CREDENTIALS = "/etc/credstore.encrypted"
# Without these and the sealed key nobody could tell which backups are this node's.
_OF_BACKUPS = ("backup.json", "backup-key.json", "repositories.json")
_KEPT = (
    "kOS was uninstalled from this machine. These data volumes and their users were kept;\n"
    "'kai uninstall --purge' removes them, a deploy takes them up again:\n\n"
)


class NotConfirmed(NodeError):
    """Nobody said, by this node's name, that it may go."""


class UnreadableBackups(NodeError):
    """The key of this node's backups would be lost with it."""


def uninstall(root: Root, purge: bool = False) -> dict[str, Any]:
    """Remove kOS; with `purge` its data too. Raises Busy while another run changes the node, UnreadableBackups.

    Returns `removed` (whether there was anything), `kept` (volumes), `left` (a sentence for what could not go).
    """
    if not os.path.isdir(root.state()):
        return {"removed": False, "kept": [], "left": []}
    with files.lock(root, wait=True):
        record.require_open(root)
        if purge:
            _require_backup_key(root)
        transaction.settle(root)
        book = ledger.load(root)
        files.write_json(root.state("uninstalling"), {"purge": purge})
        if root.booted:
            _stop(root, book)
        told = daemons.gone(_current_manifest(root), None)
        _remove_files(root, book)
        left = settings.give_back(root, None, settings.unasked(root, None))
        left += daemons.let_go(root, None, told) if root.booted else []
        left += cleanup.run(root, None, purge)
        images.drop([root.join(path) for path in images.leftovers(root, None)])
        book = ledger.load(root)
        _remove_downloads(root, book)
        kept = ledger.kept_volumes(root, book, None)
        holding.forget(root)
        if kept or left:
            _leave_kept(root, kept)
        else:
            _remove_host_key(root, book)
            shutil.rmtree(root.state())
        return {"removed": True, "kept": [row["path"] for row in kept], "left": left}


def _require_backup_key(root: Root) -> None:
    record = files.read_json(root.state("backup.json"), {})
    made = record.get("last_success") or "snapshot" in (record.get("last") or {})
    exported = os.path.exists(root.state("backup-key.json"))
    if made and not exported and os.path.exists(root.state("secrets", "restic.password.cred")):
        raise UnreadableBackups(
            "this node's backups can be read with its own key alone, which goes with it and was never exported: "
            "keep it with 'kai backup key export', then uninstall again (nothing was removed)"
        )


def _current_manifest(root: Root) -> dict[str, Any] | None:
    generation = store.current(root)
    return generation.manifest if generation else None


def _stop(root: Root, book: Ledger) -> None:
    deadline.disarm(root)
    leaving = farewell.gone(_current_manifest(root), None)
    farewell.run_exit_hooks(leaving)
    system.stop(book.units)
    # kOS's own folder goes too: what each leaves in the journal is all that stays of it.
    farewell.clear_away(root, leaving, "kOS is uninstalled")


def _remove_files(root: Root, book: Ledger) -> None:
    for path in book.files:
        ledger.restore_original(root, book, path)
    firststart.end(root)
    if root.booted:
        system.run(["systemctl", "daemon-reload"])
        system.systemctl("reset-failed", book.units)
        system.systemctl("start", book.replaced, "--no-block")
    book.files, book.units, book.replaced, book.originals = [], [], [], {}
    originals.drop_empty(root, book.directories)
    originals.drop_own_directories(root)
    ledger.save(root, book)


def _remove_downloads(root: Root, book: Ledger) -> None:
    for name in book.downloads:
        files.remove(root.join(f"{_ARCHIVES}/{name}"))
    book.downloads = []
    ledger.save(root, book)


def _remove_host_key(root: Root, book: Ledger) -> None:
    """The key that sealing our secrets made; it stays where somebody else has sealed something with it since."""
    folder = root.join(_CREDENTIALS)
    if book.host_key and not (os.path.isdir(folder) and os.listdir(folder)):
        files.remove(root.join(_HOST_KEY))


def _leave_kept(root: Root, kept: list[dict[str, str]]) -> None:
    """Of our own directory, what the kept volumes need: the ledger, the secrets they were made with, and a list."""
    stays = {
        "ledger.json",
        "secrets",
        "lock",
        "KEPT",
        "encryption",
        *_OF_BACKUPS,
        *(["uninstalling"] if not kept else []),
    }
    if kept:
        lines = [f"{row['path']}  (user {row['user']}, service {row['service']})\n" for row in kept]
        files.write(root.state("KEPT"), (_KEPT + "".join(lines)).encode())
    for name in os.listdir(root.state()):
        path = root.state(name)
        if name in stays or (not kept and name in ("current", "generations")):
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            files.remove(path)
